//! `version` and `completions`: what the program says about itself, without a platform.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, context::Context, error::Result};

/// Prints the version of this program
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  $ dyno version")]
pub(super) struct Version {}

impl Version {
    pub(super) async fn run(self, context: &mut Context) -> Result<()> {
        let platform = format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
        context.screen.say(format!("dyno/{} {platform}", env!("CARGO_PKG_VERSION"))).await
    }
}

/// Prints the completion script of a shell
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  $ dyno completions bash > /etc/bash_completion.d/dyno
  $ dyno completions zsh > ~/.zfunc/_dyno
  $ dyno completions fish > ~/.config/fish/completions/dyno.fish")]
pub(super) struct Completions {
    /// Shell to write for
    shell: Shell,
}

impl Completions {
    pub(super) async fn run(self, context: &mut Context) -> Result<()> {
        context.screen.write(&script(self.shell)).await
    }
}

fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    if shell == Shell::Bash {
        // readline splits words at colons; without this `ps:sc<TAB>` completes `sc`.
        script.extend_from_slice(b"COMP_WORDBREAKS=${COMP_WORDBREAKS//:}\n");
    }
    clap_complete::generate(shell, &mut Cli::command(), "dyno", &mut script);
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_is_told_the_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = String::from_utf8(script(shell)).unwrap();
            assert!(script.contains("scale"), "{shell}");
        }
        let bash = String::from_utf8(script(Shell::Bash)).unwrap();
        assert!(bash.starts_with("COMP_WORDBREAKS="));
        assert!(bash.contains("ps:scale"));
    }
}
