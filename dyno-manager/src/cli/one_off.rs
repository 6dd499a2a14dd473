//! What `run` and its relatives share: the arguments of a one-off dyno, how its command is joined, and what its
//! exit means to a shell.

use clap::Args;
use serde_json::{Value, json};

use super::{
    context::Context,
    error::{CliError, Result},
    target::AppRef,
};
use crate::model::{ConfigVars, DynoSize, Exit, ExitCause};

/// What every one-off can be given.
#[derive(Debug, Args)]
pub(super) struct OneOff {
    /// Dyno size
    #[arg(short, long)]
    size: Option<DynoSize>,
    /// Environment variable for this dyno only; may be given again
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// Command, or a process type with arguments; one argument goes to the shell as it is
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub(super) command: Vec<String>,
}

impl OneOff {
    /// The body of `POST /dynos`.
    pub(super) fn body(&self, attach: bool) -> Value {
        let env: serde_json::Map<_, _> = self.env.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
        let mut body = json!({ "command": join(&self.command), "attach": attach, "env": env });
        if let Some(size) = self.size {
            body["size"] = json!(size.spec().name);
        }
        body
    }

    /// Options behind the command belong to the command; whoever comes from another tool is told.
    pub(super) fn app(&self, context: &Context) -> Result<AppRef> {
        let behind = self.command.iter().any(|word| word == "-a" || word == "--app" || word.starts_with("--app="));
        context.app().map_err(|e| if behind { e.hint("Options go before the command: dyno run -a APP COMMAND") } else { e })
    }
}

/// What a program in a terminal wants to know about it.
pub(super) fn at_terminal(body: &mut Value, term: Option<&str>, (rows, cols): (u16, u16)) {
    body["tty"] = json!({ "rows": rows, "cols": cols });
    let about = [("TERM", term.map(str::to_owned)), ("COLUMNS", Some(cols.to_string())), ("LINES", Some(rows.to_string()))];
    for (name, value) in about {
        // What --env says comes first.
        if let (Some(value), true) = (value, body["env"][name].is_null()) {
            body["env"][name] = json!(value);
        }
    }
}

/// `KEY=VALUE`, the key by the rules of config vars. The value is for the platform to judge: a refusal here would print it.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must look like KEY=VALUE")?;
    ConfigVars::default().with([(key.to_owned(), Some(String::new()))]).map_err(|e| e.to_string())?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Heroku's joining: a single argument is shell text; of several, those with spaces or quotes are quoted.
pub(super) fn join(words: &[String]) -> String {
    match words {
        [one] => one.clone(),
        words => words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "),
    }
}

fn quoted(word: &str) -> String {
    if !word.is_empty() && !word.contains(|c: char| c.is_whitespace() || c == '"') {
        return word.to_owned();
    }
    let mut text = String::from("\"");
    let mut backslashes = 0;
    for c in word.chars() {
        if c == '"' {
            // Backslashes before a quote would eat the one that escapes it.
            text.push_str(&"\\".repeat(backslashes + 1));
        }
        backslashes = if c == '\\' { backslashes + 1 } else { 0 };
        text.push(c);
    }
    text.push_str(&"\\".repeat(backslashes));
    text + "\""
}

/// What is said of an exit; nothing of a success.
pub(super) fn failure(exit: &Exit) -> Option<CliError> {
    let why = match exit.cause {
        ExitCause::Exited | ExitCause::Stopped if exit.status == 0 => return None,
        ExitCause::Exited => "",
        ExitCause::Stopped => " (stopped)",
        ExitCause::Memory => " (out of memory)",
        ExitCause::Time => " (its time was up)",
        ExitCause::Lost => " (its exit record is lost)",
    };
    let error = CliError::new(format!("Process exited with code {}{why}", exit.status));
    Some(if exit.cause == ExitCause::Memory { error.hint("A larger --size has more memory.") } else { error })
}

/// What a shell can tell; a dyno that was killed or lost never counts as a success.
pub(super) fn status(exit: &Exit) -> u8 {
    match u8::try_from(exit.status) {
        Ok(0) if failure(exit).is_some() => 1,
        Ok(status) => status,
        Err(_) => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::exit, *};

    #[test]
    fn commands_are_joined_as_on_heroku() {
        let check = |words: &[&str], want: &str| {
            assert_eq!(join(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>()), want);
        };
        check(&["echo $HOME | wc"], "echo $HOME | wc");
        check(&["a b"], "a b");
        check(&["echo", "$HOME", "a b"], "echo $HOME \"a b\"");
        check(&["echo", r#"say "hi""#], r#"echo "say \"hi\"""#);
        check(&["echo", "", "x"], r#"echo "" x"#);
        check(&["echo", r#"a\"b"#], r#"echo "a\\\"b""#);
        check(&["echo", r"a b\"], r#"echo "a b\\""#);
        check(&["echo", "a\nb"], "echo \"a\nb\"");
    }

    #[test]
    fn statuses_of_all_causes() {
        let check = |cause: ExitCause, code: i32, want: u8, said: &str| {
            let exit = Exit { cause, ..exit(code) };
            assert_eq!(status(&exit), want, "{cause:?} {code}");
            let told = failure(&exit).map(|e| e.message).unwrap_or_default();
            assert_eq!(told, said, "{cause:?} {code}");
        };
        check(ExitCause::Exited, 0, 0, "");
        check(ExitCause::Exited, 2, 2, "Process exited with code 2");
        check(ExitCause::Stopped, 143, 143, "Process exited with code 143 (stopped)");
        check(ExitCause::Memory, 137, 137, "Process exited with code 137 (out of memory)");
        check(ExitCause::Time, 0, 1, "Process exited with code 0 (its time was up)");
        check(ExitCause::Lost, -1, 1, "Process exited with code -1 (its exit record is lost)");
    }

    #[test]
    fn a_terminal_is_described_but_not_over_the_user_s_word() {
        let mut body = json!({"env": {"TERM": "dumb"}});
        at_terminal(&mut body, Some("xterm"), (50, 132));
        let want = json!({"env": {"TERM": "dumb", "COLUMNS": "132", "LINES": "50"}, "tty": {"rows": 50, "cols": 132}});
        assert_eq!(body, want);
    }
}
