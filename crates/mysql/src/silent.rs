//! Values that the server cut or rounded without a word: looked for in what was just written, before it
//! is committed.
//!
//! The server speaks up about most of what does not fit, but not about fractions of a second, decimals
//! that become integers, digits beyond a float, trailing spaces of CHAR. Owns the search for those; which
//! conversions are silent is `forms`' knowledge.

use underpin_core::key::KeyRange;
use underpin_core::way::Way;
use underpin_dialect::{DbError, DbResult, ErrorKind};

use crate::query::{cell, first, optional_text, text, unquote};
use crate::shape::{KeyPart, Pair, Shape};
use crate::verify::{pending_filter, pending_join};
use crate::worker::Worker;

/// Characters of a value that a message shows.
const SHOWN_CHARS: u32 = 100;

/// What to do where the old shape cannot hold a value of the new table.
pub(crate) const CANNOT_GO_BACK: &str = "The old shape cannot hold this value as it is. Mend the row and \
                                         run the same command again; the table stays as it is";

/// A pair of columns with the expressions to compare and to show.
struct Watched<'a> {
    pair: &'a Pair,
    /// True where the value was not kept.
    lost: String,
    old: String,
    new: String,
}

impl Worker {
    /// Compares the rows of a chunk that was copied in this transaction. Rows that changed since are
    /// left out: they are pending, and looked at when they are applied.
    ///
    /// # Errors
    /// `DataError`, naming row, column and both values.
    pub(crate) async fn refuse_copied_losses(&mut self, range: &KeyRange) -> DbResult<()> {
        let watched = watched(&self.shape, |_, pair| Watched {
            pair,
            lost: format!("NOT ({} <=> {})", pair.source_form, pair.target_form),
            old: format!("s.{}", pair.source),
            new: format!("n.{}", pair.target),
        });
        if watched.is_empty() {
            return Ok(());
        }
        let shape = &self.shape;
        let tables = format!(
            "{} AS s FORCE INDEX ({}) JOIN {} AS n FORCE INDEX ({}) ON {} {} WHERE {}{}",
            shape.source,
            shape.source_index,
            shape.shadow,
            shape.target_index,
            shape.shadow_meets("n.", "s.", |part: &KeyPart| &part.source),
            pending_join(shape, true, &shape.log_meets_source("p.", "s.")),
            shape.range(range, |part| format!("s.{}", part.source))?,
            pending_filter(true),
        );
        let keys = Shape::list(&shape.key, |part| part.kind.shown(&format!("s.{}", part.source)));
        let sql = search_sql(&watched, &keys, &tables);
        let columns: Vec<String> = watched.iter().map(|one| one.pair.source.clone()).collect();
        self.refuse_loss(&sql, &columns, "copying a chunk of").await
    }

    /// Compares the rows of the stage with what their columns held, which was staged beside them.
    ///
    /// # Errors
    /// As [`Self::refuse_copied_losses`].
    pub(crate) async fn refuse_staged_losses(&mut self) -> DbResult<()> {
        let watched = watched(&self.shape, |index, pair| Watched {
            pair,
            lost: pair.staged_loss.clone().unwrap_or_default(),
            old: format!("o{index}"),
            new: format!("c{index}"),
        });
        if watched.is_empty() {
            return Ok(());
        }
        let tables = format!("{} WHERE first_of_key AND taken AND present", self.shape.stage);
        let keys = Shape::list(&self.shape.key, |part| {
            part.kind.shown(&format!("t_{}", crate::shape::bare(part)))
        });
        let sql = search_sql(&watched, &keys, &tables);
        let columns: Vec<String> = watched.iter().map(|one| one.pair.source.clone()).collect();
        self.refuse_loss(&sql, &columns, "reading pending changes of").await
    }

    /// On the way back: a row that is new, where the old shape wants a value that nothing tells.
    ///
    /// # Errors
    /// `DataError`, naming row and column.
    pub(crate) async fn refuse_valueless(&mut self) -> DbResult<()> {
        let Some(column) = self.shape.valueless.first().cloned() else { return Ok(()) };
        let keys = Shape::list(&self.shape.key, |part| {
            part.kind.shown(&format!("t_{}", crate::shape::bare(part)))
        });
        let sql = format!(
            "SELECT {keys} FROM {} WHERE first_of_key AND taken AND present AND NOT beyond AND drawn = \
             0 LIMIT 1",
            self.shape.stage
        );
        let samples = self.key_samples(&sql).await?;
        let Some(row) = samples.first() else { return Ok(()) };
        let old = &self.spec.names.shadow;
        Err(DbError::new(
            ErrorKind::DataError,
            "bringing rows back to",
            format!("{}; row {row}, column {column}", self.shape.table),
        )
        .said(format!("nothing: column {column} of the old shape is NOT NULL without a DEFAULT"))
        .help(format!(
            "The row is new since the swap, and nothing says what it shall have there. Give the column \
             of {old} a DEFAULT and run the same command again; the table stays as it is"
        )))
    }

    async fn refuse_loss(&mut self, sql: &str, columns: &[String], doing: &str) -> DbResult<()> {
        let object = self.shape.table.clone();
        let found =
            first(&mut self.session.conn, sql, "looking for values that were cut in", &object)
                .await?;
        let Some(row) = found else { return Ok(()) };
        let keys = self.shape.key.len();
        let which: usize = cell(&row, keys, "reading a value that was cut")?;
        let column = columns.get(which).cloned().unwrap_or_default();
        let value = |index: usize| {
            optional_text(&row, index)
                .map_or_else(|| "NULL".to_owned(), |value| format!("'{value}'"))
        };
        let key: Vec<String> = self
            .shape
            .key
            .iter()
            .enumerate()
            .map(|(index, part)| format!("{}={}", unquote(&part.source), text(&row, index)))
            .collect();
        let column = unquote(&column);
        Err(DbError::new(
            ErrorKind::DataError,
            doing,
            format!("{object}; row {}, column {column}, value {}", key.join(", "), value(keys + 1)),
        )
        .said(format!("nothing, and stored {}", value(keys + 2)))
        .help(match self.spec.way {
            Way::Forward => {
                "The new shape cannot hold this value as it is. Mend the row or the statement; the \
                 source is untouched"
            }
            Way::Back => CANNOT_GO_BACK,
        }))
    }
}

fn watched<'a>(
    shape: &'a Shape,
    watch: impl Fn(usize, &'a Pair) -> Watched<'a>,
) -> Vec<Watched<'a>> {
    let pairs = shape.pairs.iter().enumerate().filter(|(_, pair)| pair.staged_loss.is_some());
    pairs.map(|(index, pair)| watch(index, pair)).collect()
}

/// The first row with a loss: its key, which pair, old and new value. `tables` ends inside a WHERE.
fn search_sql(watched: &[Watched<'_>], keys: &str, tables: &str) -> String {
    let case = |then: &dyn Fn(usize, &Watched<'_>) -> String| {
        let branches: Vec<String> = watched
            .iter()
            .enumerate()
            .map(|(index, one)| format!("WHEN {} THEN {}", one.lost, then(index, one)))
            .collect();
        format!("CASE {} END", branches.join(" "))
    };
    let lost: Vec<&str> = watched.iter().map(|one| one.lost.as_str()).collect();
    format!(
        "SELECT {keys}, {}, LEFT({}, {SHOWN_CHARS}), LEFT({}, {SHOWN_CHARS}) FROM {tables} AND ({}) \
         LIMIT 1",
        case(&|index, _| index.to_string()),
        case(&|_, one| format!("CAST({} AS CHAR)", one.old)),
        case(&|_, one| format!("CAST({} AS CHAR)", one.new)),
        lost.join(" OR ")
    )
}
