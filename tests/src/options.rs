//! The lab's command line: options with values, flags, nothing clever.
//!
//! Owns reading them. The product has its own, made for people; this is for scripts.

use std::str::FromStr;

use anyhow::{Context, Result, bail};
use underpin_tests::servers::Flavor;

/// Options and plain words of one call.
#[derive(Debug, Default)]
pub(crate) struct Options {
    values: Vec<(String, String)>,
    flags: Vec<String>,
    /// Words that are no option, in order.
    pub(crate) words: Vec<String>,
}

impl Options {
    /// Reads `words`; only the options named in `with_value` and `flags` are known.
    pub(crate) fn read(words: &[String], with_value: &[&str], flags: &[&str]) -> Result<Self> {
        let mut options = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if with_value.contains(&word.as_str()) {
                let value = words.next().with_context(|| format!("{word} needs a value"))?;
                options.values.push((word.clone(), value.clone()));
            } else if flags.contains(&word.as_str()) {
                options.flags.push(word.clone());
            } else if word.starts_with('-') {
                bail!("the option {word} is not known here");
            } else {
                options.words.push(word.clone());
            }
        }
        Ok(options)
    }

    /// Every value given for an option.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let given = self.values.iter().filter(|(option, _)| option == name);
        given.map(|(_, value)| value.as_str()).collect()
    }

    /// The last value given, or `default`.
    pub(crate) fn value<T: FromStr>(&self, name: &str, default: T) -> Result<T> {
        match self.all(name).last() {
            Some(text) => match text.parse() {
                Ok(value) => Ok(value),
                Err(_) => bail!("{name} cannot be {text:?}"),
            },
            None => Ok(default),
        }
    }

    /// Whether a flag was given.
    pub(crate) fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|given| given == flag)
    }

    /// The server named by `--db`, or `default`.
    pub(crate) fn flavor(&self, default: Flavor) -> Result<Flavor> {
        self.all("--db").last().map_or(Ok(default), |name| Flavor::from_name(name))
    }

    /// The servers named by `--db`; all of the matrix when none is.
    pub(crate) fn flavors(&self) -> Result<Vec<Flavor>> {
        let named: Result<Vec<Flavor>> =
            self.all("--db").into_iter().map(Flavor::from_name).collect();
        named.map(|named| if named.is_empty() { Flavor::MATRIX.to_vec() } else { named })
    }
}
