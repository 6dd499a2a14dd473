//! What must hold of names and of Procfiles.

use std::{fmt::Display, str::FromStr};

use super::{AppName, ConfigVars, DynoName, DynoSize, Egress, MAX_CONFIG_BYTES, ProcessType, procfile};
use crate::fuzzing::one_line;

/// What is accepted is written as it was read, and leads nowhere in a path.
fn name<T: FromStr + Display + PartialEq + std::fmt::Debug>(text: &str) -> Option<String>
where
    T::Err: Display,
{
    match text.parse::<T>() {
        Ok(name) => {
            let written = name.to_string();
            assert_eq!(written.parse::<T>().ok(), Some(name), "{written:?} cannot be read again");
            assert!(!written.contains(['/', '\0', '\n', ' ', '"']) && !written.contains("..") && written.is_ascii(), "{written:?}");
            Some(written)
        }
        Err(error) => {
            one_line(&error.to_string());
            None
        }
    }
}

pub(crate) fn names(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for written in [name::<AppName>(text), name::<ProcessType>(text)].into_iter().flatten() {
        assert_eq!(written, text);
    }
    name::<DynoName>(text);
    name::<DynoSize>(text);
    name::<Egress>(text);
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    match ConfigVars::default().with([(name.to_owned(), Some(value.to_owned()))]) {
        Ok(vars) => {
            assert!(name.len() + value.len() <= MAX_CONFIG_BYTES && !value.contains('\0'));
            assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !["PORT", "DYNO", "HOME"].contains(&name), "{name:?}");
            assert_eq!(vars.iter().collect::<Vec<_>>(), [(name, value)]);
        }
        Err(error) => one_line(&error.to_string()),
    }
}

/// What is accepted can be written as a Procfile that says the same.
pub(crate) fn procfile(bytes: &[u8]) {
    match procfile::parse(bytes) {
        Ok(types) => {
            let text: String = types.iter().map(|(name, command)| format!("{name}: {command}\n")).collect();
            assert_eq!(procfile::parse(text.as_bytes()), Ok(types), "{text:?}");
        }
        Err(error) => {
            one_line(&error.to_string());
            assert!(error.line <= 1 + bytes.iter().filter(|b| **b == b'\n').count(), "{error}");
        }
    }
}
