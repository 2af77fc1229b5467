//! Mistakes in a config, and advice: each by the path of its setting, never with a secret.

use std::fmt;
use std::path::{Path, PathBuf};

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The setting, such as `token_sources.ticket.args.access_token`; empty for the whole file.
    pub path: String,
    /// What is wrong, and what to do.
    pub message: String,
}

impl Mistake {
    /// A mistake in the setting at `path`.
    pub fn at(path: impl Into<String>, message: impl Into<String>) -> Mistake {
        Mistake { path: path.into(), message: message.into() }
    }

    /// A mistake of the file as a whole.
    pub fn file(message: impl Into<String>) -> Mistake {
        Mistake::at("", message)
    }
}

/// What works, but not as well or as safely as it could. A server with advice starts all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// The setting, as in a [`Mistake`].
    pub path: String,
    /// What could be better, and what to do.
    pub message: String,
    /// The same in Chinese, where somebody has written it.
    pub zh: Option<String>,
}

/// What advice says: in English, or in both languages.
pub(super) struct Saying {
    pub(super) en: String,
    pub(super) zh: Option<String>,
}

impl From<&str> for Saying {
    fn from(en: &str) -> Saying {
        Saying { en: en.into(), zh: None }
    }
}

impl From<String> for Saying {
    fn from(en: String) -> Saying {
        Saying { en, zh: None }
    }
}

impl From<(String, String)> for Saying {
    fn from((en, zh): (String, String)) -> Saying {
        Saying { en, zh: Some(zh) }
    }
}

impl Advice {
    /// Advice on the setting at `path`.
    pub(super) fn on(path: impl Into<String>, message: String, zh: Option<String>) -> Advice {
        Advice { path: path.into(), message, zh }
    }
}

/// Every mistake that was found in one config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    file: PathBuf,
    mistakes: Vec<Mistake>,
}

impl ConfigErrors {
    /// These mistakes, of the config in `file`.
    pub fn new(file: &Path, mistakes: Vec<Mistake>) -> ConfigErrors {
        ConfigErrors { file: file.to_owned(), mistakes }
    }

    pub(super) fn one(file: &Path, mistake: Mistake) -> ConfigErrors {
        ConfigErrors::new(file, vec![mistake])
    }

    /// The mistakes, in the order of the settings.
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        match self.mistakes.len() {
            1 => write!(f, "1 mistake in {file}:")?,
            n => write!(f, "{n} mistakes in {file}:")?,
        }
        for Mistake { path, message } in &self.mistakes {
            if path.is_empty() {
                write!(f, "\n  {message}")?;
            } else {
                write!(f, "\n  {path}: {message}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
