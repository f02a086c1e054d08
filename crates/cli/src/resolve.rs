//! From the command line as written to a request that can be carried out.
//!
//! Everything that can be wrong without asking a server is found here, as a usage error: nothing has
//! been contacted then. Reads files and standard input, opens no connection.

pub(crate) mod options;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::Read;

use anyhow::Context as _;
use jiff::Timestamp;
use underpin_core::alter::{Alter, AlterError, Syntax};
use underpin_core::plan;
use underpin_dialect::{IndexTiming, Request};
use underpin_engine::RunOptions;

use crate::args::{
    Capture, Finish, GlobalArgs, Indexes, PlanArgs, RunArgs, ShapeArgs, Source, StatementArgs,
    Strategy,
};
use crate::backend::{Backend, SessionWishes, syntax_of};
use crate::exit::Problem;

/// A longer statement is a mistake, such as the wrong file.
const STATEMENT_BYTES_MAX: u64 = 1024 * 1024;

/// A plan or run that can be tried.
#[derive(Debug)]
pub(crate) struct Change {
    /// The server.
    pub(crate) backend: Backend,
    /// What is asked of it.
    pub(crate) request: Request,
}

/// A run with its limits.
#[derive(Debug)]
pub(crate) struct RunOrder {
    /// What to change.
    pub(crate) change: Change,
    /// How.
    pub(crate) options: RunOptions,
    /// Whether the person was asked already.
    pub(crate) yes: bool,
}

/// Checks the arguments of `plan`.
///
/// # Errors
/// A usage error.
pub(crate) fn plan(
    args: &PlanArgs,
    global: &GlobalArgs,
    input: &mut dyn Read,
) -> anyhow::Result<Change> {
    let wishes = SessionWishes::default();
    change(&args.url, &args.statement, &args.shape, wishes, global, input)
}

/// Checks the arguments of `run`. `can_ask`: there is a person at a terminal.
///
/// # Errors
/// A usage error.
pub(crate) fn run(
    args: &RunArgs,
    global: &GlobalArgs,
    can_ask: bool,
    input: &mut dyn Read,
) -> anyhow::Result<RunOrder> {
    if !args.yes && !can_ask {
        return Err(Problem::usage(
            "there is no terminal to ask whether the change may begin",
            "look at `underpin plan` first, then add --yes",
        )
        .into());
    }
    let wishes = SessionWishes { lock_timeout_ms: Some(args.work.lock_timeout.0) };
    let change = change(&args.url, &args.statement, &args.shape, wishes, global, input)?;
    let options = options::options(&args.work, &args.given, change.backend.workers())?;
    Ok(RunOrder { change, options, yes: args.yes })
}

fn change(
    url: &str,
    statement: &StatementArgs,
    shape: &ShapeArgs,
    wishes: SessionWishes,
    global: &GlobalArgs,
    input: &mut dyn Read,
) -> anyhow::Result<Change> {
    let statement = read_statement(statement, input)?;
    let alter = parse_statement(&statement, syntax_of(url))?;
    let backend = Backend::resolve(url, global, wishes, &shape.replicas)?;
    let request = Request {
        run_id: new_run_id(),
        alter,
        statement,
        default_schema: backend.default_schema(),
        replicas: shape.replicas.clone(),
        indexes: match shape.indexes {
            Indexes::Auto => IndexTiming::Auto,
            Indexes::During => IndexTiming::During,
            Indexes::After => IndexTiming::After,
        },
        force_shadow: shape.strategy == Strategy::Shadow,
        keeps_way_back: shape.finish == Finish::Keep,
        capture: capture(shape.capture, &backend)?,
    };
    Ok(Change { backend, request })
}

fn capture(wanted: Capture, backend: &Backend) -> Result<plan::Capture, Problem> {
    match wanted {
        Capture::Row => Ok(plan::Capture::Row),
        Capture::Statement if backend.is_postgres() => Ok(plan::Capture::Statement),
        Capture::Statement => Err(Problem::usage(
            "--capture statement is for PostgreSQL: MySQL and MariaDB have no triggers for statements",
            "leave it out",
        )),
    }
}

/// Reads the statement from where it stands.
fn read_statement(args: &StatementArgs, input: &mut dyn Read) -> anyhow::Result<String> {
    let (bytes, origin) = match args.source() {
        Some(Source::Text(text)) => (text.into_bytes(), "the command line".to_owned()),
        Some(Source::File(path)) => {
            let origin = path.display().to_string();
            let opened = std::fs::File::open(&path).map_err(|error| {
                let next = "check the path given to --file";
                Problem::usage(format!("{origin} cannot be opened: {error}"), next)
            })?;
            (read_bounded(opened, &origin)?, origin)
        }
        Some(Source::StandardInput) => {
            let origin = "standard input".to_owned();
            (read_bounded(input, &origin)?, origin)
        }
        None => return Err(Problem::usage("there is no statement", STATEMENT_FORMS).into()),
    };
    let text = String::from_utf8(bytes).map_err(|_| {
        Problem::usage(format!("the statement from {origin} is not UTF-8"), "convert it to UTF-8")
    })?;
    // Some editors begin a file with a byte order mark, which no server takes for white space.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text).trim();
    if text.is_empty() {
        return Err(Problem::usage(format!("{origin} holds no statement"), STATEMENT_FORMS).into());
    }
    Ok(text.to_owned())
}

const STATEMENT_FORMS: &str =
    "write it after the URL, name a file with --file, or write - to read standard input";

fn read_bounded(reader: impl Read, origin: &str) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader
        .take(STATEMENT_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Problem::usage(format!("{origin} cannot be read: {error}"), ""))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > STATEMENT_BYTES_MAX) {
        let next = "give one ALTER TABLE statement";
        return Err(Problem::usage(format!("{origin} is larger than 1 MiB"), next).into());
    }
    Ok(bytes)
}

fn parse_statement(statement: &str, syntax: Syntax) -> anyhow::Result<Alter> {
    Alter::parse(statement, syntax)
        .map_err(|error| problem_of(&error))
        .context("reading the statement")
}

fn problem_of(error: &AlterError) -> Problem {
    let near = match error.near.as_str() {
        "" => String::new(),
        near => format!(", near \"{near}\""),
    };
    Problem::usage(format!("{} at {}{near}", error.what, error.at), error.help.clone())
}

/// A table as `abort` and `status` take it: `orders`, `shop.orders`, or with names in backticks or double
/// quotes. Names are as the catalogue spells them: case counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableArg {
    /// The schema or database, where one was written.
    pub(crate) schema: Option<String>,
    /// The table.
    pub(crate) name: String,
}

impl TableArg {
    /// Reads the argument.
    ///
    /// # Errors
    /// A usage error.
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let mut parts = Vec::new();
        let mut rest = text;
        // Two names at most; the bound is the form itself.
        for _ in 0..2 {
            let (name, after) = one_name(rest).ok_or_else(|| bad_table(text))?;
            parts.push(name);
            match after.strip_prefix('.') {
                Some(next) => rest = next,
                None if after.is_empty() => {
                    rest = after;
                    break;
                }
                None => return Err(bad_table(text)),
            }
        }
        let mut parts = parts.into_iter();
        match (parts.next(), parts.next(), rest.is_empty() && !text.ends_with('.')) {
            (Some(schema), Some(name), true) => Ok(Self { schema: Some(schema), name }),
            (Some(name), None, true) => Ok(Self { schema: None, name }),
            _ => Err(bad_table(text)),
        }
    }

    /// Whether a listed run, known as `schema.table`, is of this table.
    pub(crate) fn is(&self, listed: &str, default_schema: Option<&str>) -> bool {
        match self.schema.as_deref().or(default_schema) {
            Some(schema) => listed == format!("{schema}.{}", self.name),
            None => listed.split_once('.').is_some_and(|(_, name)| name == self.name),
        }
    }
}

/// A name from the front of a text, and what follows it.
fn one_name(text: &str) -> Option<(String, &str)> {
    let quotes = ['`', '"'];
    let Some(quote) = text.chars().next().filter(|first| quotes.contains(first)) else {
        let end = text.find('.').unwrap_or(text.len());
        let name = &text[..end];
        return (!name.is_empty() && !name.contains(quotes))
            .then(|| (name.to_owned(), &text[end..]));
    };
    let quoted = &text[quote.len_utf8()..];
    let mut name = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        if c != quote {
            name.push(c);
        } else if quoted[at + 1..].starts_with(quote) {
            name.push(quote);
            chars.next();
        } else {
            return (!name.is_empty()).then(|| (name, &quoted[at + 1..]));
        }
    }
    None
}

fn bad_table(text: &str) -> Problem {
    Problem::usage(
        format!("{text:?} is no table name"),
        "write table or schema.table (on MySQL database.table); names that hold a dot stand in `backticks` \
         or \"double quotes\"",
    )
}

/// An id that no other run on the server has: seconds since 1970 and a random part, in base 36. Short,
/// because it is part of names.
fn new_run_id() -> String {
    let seconds = u64::try_from(Timestamp::now().as_second()).unwrap_or(0);
    let random = RandomState::new().build_hasher().finish();
    format!("{}{:0>4}", base36(seconds), base36(random % 36_u64.pow(4)))
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        let digit = u32::try_from(number % 36).ok().and_then(|digit| char::from_digit(digit, 36));
        digits.extend(digit);
        number /= 36;
        if number == 0 {
            return digits.iter().rev().collect();
        }
    }
}

#[cfg(test)]
mod tests;
