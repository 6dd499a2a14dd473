//! The first program of a dyno: a shell that reads what buildpacks left in `.profile.d`, then the app's `.profile`, and becomes the command.
//!
//! A command line is for a shell of its own, untouched by the settings and names of those scripts. That second shell takes as long to start as
//! the first one, so it is left out where it would only expand variables and execute: for a command of plain words. (Not for a one-off: who
//! types a command that does not exist is to be told in the words that he knows.)

/// What is read first.
const PROFILES: &str = "\
for script in /app/.profile.d/*.sh; do [ -r \"$script\" ] && . \"$script\"; done
[ -r /app/.profile ] && . /app/.profile
";

/// Arguments of the dyno's first program: `command` in a shell of its own.
pub(super) fn shell(command: &str) -> Vec<String> {
    ["/bin/bash", "-c", &format!("{PROFILES}exec /bin/bash -c \"$0\""), command].map(str::to_owned).to_vec()
}

/// As [`shell`], but for a plain command without that second one.
pub(super) fn lean(command: &str) -> Vec<String> {
    // Splitting and patterns are as in a new shell, whatever the scripts have set.
    let alone = |words| ["/bin/bash", "-c", &format!("{PROFILES}unset IFS; set +uf\nexec {words}")].map(str::to_owned).to_vec();
    plain(command).map_or_else(|| shell(command), alone)
}

/// The words of a simple command (bash(1), "Simple Commands") that names a program, without `exec` before it; None for all else: quotes,
/// patterns, redirections, assignments, several commands, words that the shell itself carries out.
fn plain(command: &str) -> Option<&str> {
    let command = command.trim_matches(' ');
    let words = command.strip_prefix("exec ").unwrap_or(command).trim_start_matches(' ');
    let program = words.split(' ').next()?;
    let named = program.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '.' || c == '/');
    let outside = program.contains('/') || !INSIDE.contains(&program);
    let letters = program.bytes().all(|b| b.is_ascii_alphanumeric() || b"_./+-".contains(&b));
    // A lone point reads a script.
    (named && outside && letters && program != "." && only_words(words)).then_some(words)
}

/// True if nothing means more to a shell than itself, but spaces, `$NAME` and `${NAME}`.
fn only_words(text: &str) -> bool {
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        rest = &rest[next.len_utf8()..];
        if next == '$' {
            let (name, after) = match rest.strip_prefix('{') {
                Some(inner) => match inner.split_once('}') {
                    Some(split) => split,
                    None => return false,
                },
                None => rest.split_at(rest.find(|c: char| !is_name(c)).unwrap_or(rest.len())),
            };
            if name.is_empty() || !name.chars().all(is_name) || name.starts_with(|c: char| c.is_ascii_digit()) {
                return false;
            }
            rest = after;
        } else if !(next.is_ascii_alphanumeric() || " _./:,@%+=-".contains(next)) {
            return false;
        }
    }
    true
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Builtins and reserved words of bash 5.2 (`compgen -b`, `compgen -k`) that are spelt with letters.
const INSIDE: [&str; 75] = [
    "alias",
    "bg",
    "bind",
    "break",
    "builtin",
    "caller",
    "case",
    "cd",
    "command",
    "compgen",
    "complete",
    "compopt",
    "continue",
    "coproc",
    "declare",
    "dirs",
    "disown",
    "do",
    "done",
    "echo",
    "elif",
    "else",
    "enable",
    "esac",
    "eval",
    "exec",
    "exit",
    "export",
    "false",
    "fc",
    "fg",
    "fi",
    "for",
    "function",
    "getopts",
    "hash",
    "help",
    "history",
    "if",
    "in",
    "jobs",
    "kill",
    "let",
    "local",
    "logout",
    "mapfile",
    "popd",
    "printf",
    "pushd",
    "pwd",
    "read",
    "readarray",
    "readonly",
    "return",
    "select",
    "set",
    "shift",
    "shopt",
    "source",
    "suspend",
    "test",
    "then",
    "time",
    "times",
    "trap",
    "true",
    "type",
    "typeset",
    "ulimit",
    "umask",
    "unalias",
    "unset",
    "until",
    "wait",
    "while",
];

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn plain_commands_are_told_from_those_for_a_shell() {
        for (command, words) in [
            ("python3 web.py", "python3 web.py"),
            ("gunicorn app:app --bind 0.0.0.0:$PORT", "gunicorn app:app --bind 0.0.0.0:$PORT"),
            ("exec  bin/server -p ${PORT} --name=a,b@c%d+e", "bin/server -p ${PORT} --name=a,b@c%d+e"),
            (" ./server ", "./server"),
            ("bash", "bash"),
        ] {
            assert_eq!(plain(command), Some(words), "{command}");
        }
        for command in [
            "",
            " ",
            "cd app",
            "exec",
            "exec cd",
            ". env.sh",
            "A=b server",
            "echo $PORT",
            "server $1",
            "server $0",
            "server $$",
            "server ${PORT:-5000}",
            "server ${",
            "server ${}",
            "server $",
            "a; b",
            "a && b",
            "a|b",
            "a &",
            "a >b",
            "'a' b",
            "\"a\"",
            "a \\b",
            "a *.py",
            "a b?",
            "a [b]",
            "~/a",
            "a ~",
            "a {b,c}",
            "a (b)",
            "a #b",
            "a !b",
            "a `b`",
            "$SERVER a",
            "-a b",
            "a\nb",
            "a\tb",
            "exec -a b c",
            "time server",
            "server \u{e9}",
        ] {
            assert_eq!(plain(command), None, "{command:?}");
        }
    }

    #[test]
    fn every_word_of_the_shell_is_known() {
        let Ok(output) = Command::new("bash").args(["-c", "compgen -b; compgen -k"]).output() else {
            return println!("skipped: no bash here");
        };
        let words = String::from_utf8(output.stdout).unwrap();
        for word in words.lines().filter(|w| w.starts_with(|c: char| c.is_ascii_alphanumeric()) && *w != ".") {
            assert!(INSIDE.contains(&word), "{word}");
        }
        assert!(words.lines().count() > 50, "{words}");
    }

    #[test]
    fn both_ways_have_the_same_outcome() {
        for command in ["printenv PORT", "expr $PORT + ${PORT}", "nothing-of-this-name", "ls /nonexistent"] {
            assert!(plain(command).is_some(), "{command}");
            let run = |argv: Vec<String>| Command::new(&argv[0]).args(&argv[1..]).env("PORT", "5000").output();
            let (Ok(one), Ok(two)) = (run(lean(command)), run(shell(command))) else { return println!("skipped: no bash here") };
            assert_eq!((one.status, one.stdout), (two.status, two.stdout), "{command}");
        }
    }
}
