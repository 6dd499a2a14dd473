//! Arguments, one after the other.

use std::{ffi::OsString, path::PathBuf, str::FromStr};

use super::Failure;

/// One argument.
#[derive(Debug)]
pub(super) enum Word {
    /// `--NAME` or `-N`, without its value.
    Option(String),
    /// Anything else.
    Value(OsString),
}

/// The arguments that are still to come.
#[derive(Debug)]
pub(super) struct Words {
    parser: lexopt::Parser,
    verb: &'static str,
    taken: usize,
    option: String,
    /// Whether `--help` was among them: then nothing is done.
    pub help: bool,
}

impl Words {
    pub fn new(args: &[OsString]) -> Self {
        Self { parser: lexopt::Parser::from_args(args), verb: "", taken: 0, option: String::new(), help: false }
    }

    /// From here on they are a verb's.
    pub fn begin(&mut self, verb: &'static str) {
        self.verb = verb;
    }

    /// Whether what was taken last was the first of all.
    pub fn is_first(&self) -> bool {
        self.taken == 1
    }

    /// The next; None after the last, and after `--help`.
    pub fn next(&mut self) -> Result<Option<Word>, Failure> {
        self.taken += 1;
        let word = match self.parser.next() {
            Ok(None) => return Ok(None),
            Ok(Some(lexopt::Arg::Long(name))) => Word::Option(name.to_owned()),
            Ok(Some(lexopt::Arg::Short(letter))) => Word::Option(letter.to_string()),
            Ok(Some(lexopt::Arg::Value(value))) => Word::Value(value),
            Err(e) => return Err(self.wrong(&e.to_string())),
        };
        if let Word::Option(name) = &word {
            self.option = if name.chars().count() == 1 { format!("-{name}") } else { format!("--{name}") };
            if !self.verb.is_empty() && matches!(name.as_str(), "help" | "h" | "?") {
                self.help = true;
                return Ok(None);
            }
        }
        Ok(Some(word))
    }

    /// The value of the option that was taken last.
    pub fn value(&mut self) -> Result<OsString, Failure> {
        self.parser.value().map_err(|_| self.wrong(&format!("{} needs a value", self.option)))
    }

    /// [`Words::value`] as text.
    pub fn text(&mut self) -> Result<String, Failure> {
        self.value()?.into_string().map_err(|value| self.wrong(&format!("{} {value:?} is no UTF-8", self.option)))
    }

    /// [`Words::value`] as a path.
    pub fn path(&mut self) -> Result<PathBuf, Failure> {
        let value = self.value()?;
        if value.is_empty() { Err(self.wrong(&format!("{} is empty", self.option))) } else { Ok(value.into()) }
    }

    /// [`Words::value`] as a number.
    pub fn number<N: FromStr>(&mut self) -> Result<N, Failure> {
        let text = self.text()?;
        text.trim().parse().map_err(|_| self.wrong(&format!("{} {text:?} is no number that fits", self.option)))
    }

    /// An option that is on when it is there, unless it says `=false` (as Go's flags have it).
    pub fn flag(&mut self) -> Result<bool, Failure> {
        match self.parser.optional_value() {
            None => Ok(true),
            Some(value) => match value.to_str() {
                Some("true" | "1" | "t" | "TRUE" | "True") => Ok(true),
                Some("false" | "0" | "f" | "FALSE" | "False") => Ok(false),
                _ => Err(self.wrong(&format!("{}={value:?} is neither true nor false", self.option))),
            },
        }
    }

    /// All that is left, options or not, as text.
    pub fn rest(&mut self) -> Result<Vec<String>, Failure> {
        let rest: Vec<OsString> = self.parser.raw_args().map_err(|e| Failure::new(e.to_string()))?.collect();
        rest.into_iter().map(|word| word.into_string().map_err(|word| self.wrong(&format!("argument {word:?} is no UTF-8")))).collect()
    }

    /// A refusal that says where help is.
    pub fn wrong(&self, what: &str) -> Failure {
        let verb = if self.verb.is_empty() { String::new() } else { format!(" {}", self.verb) };
        Failure::new(format!("{what}: see `dyno-runtime{verb} --help`"))
    }

    /// For an argument that nothing is done about.
    pub fn unexpected(&self, word: &Word) -> Failure {
        self.wrong(&match word {
            Word::Option(_) => format!("option {} does not exist", self.option),
            Word::Value(value) => format!("argument {value:?} is one too many"),
        })
    }

    /// For a verb with no options: the id.
    pub fn only_id(&mut self) -> Result<String, Failure> {
        let mut id = None;
        while let Some(word) = self.next()? {
            match word {
                Word::Value(value) if id.is_none() => id = Some(value),
                other => return Err(self.unexpected(&other)),
            }
        }
        self.id(id)
    }

    /// The id, which must be there.
    pub fn id(&self, given: Option<OsString>) -> Result<String, Failure> {
        match given.map(OsString::into_string) {
            Some(Ok(id)) => Ok(id),
            Some(Err(id)) => Err(Failure::new(format!("invalid container ID format: {id:?}"))),
            // Nobody sees it.
            None if self.help => Ok(String::new()),
            None => Err(self.wrong(&format!("{} needs the id of a container", self.verb))),
        }
    }
}
