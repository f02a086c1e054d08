//! Is the shadow still the table that was made, and which table is which? OIDs and shape, noted with the
//! run.
//!
//! Somebody may drop an index of the shadow, or a unique key, or add a column: swapped like that it would
//! not be what was asked for. And somebody may exchange the tables by hand: then a name no longer tells
//! which of them holds the rows. Definitions are compared, not the OIDs of indexes: `REINDEX
//! CONCURRENTLY` is no change. Tables are noted by the shape that they have, not by their name, so that
//! the same notes serve both ways.

use underpin_core::checkpoint::{Checkpoint, Phase};
use underpin_core::machine::SwapState;
use underpin_core::plan::RunSpec;
use underpin_core::way::Way;
use underpin_dialect::{DbError, DbResult, ErrorKind};

use crate::changelog::NOT_TO_BE_FOLLOWED;
use crate::connect::Session;
use crate::control::Control;
use crate::names::{self, places};
use crate::query::{first, literal, optional_text, text};
use crate::store;

/// Under which a table is noted: of the old shape.
const OLD: &str = "old";

/// Likewise: of the new shape.
const NEW: &str = "new";

/// Under which the way of the last swap is noted, in the swap's own transaction.
const STANDS: &str = "stands";

/// What the parts of a shape are called; the first [`ALWAYS`] hold from the start, the others from when
/// the indexes stand.
const PARTS: [&str; 6] =
    ["columns", "options or rights", "checks", "triggers", "constraints or NOT NULL", "indexes"];

/// See [`PARTS`].
const ALWAYS: usize = 4;

/// What a table is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Print {
    oid: String,
    /// Whether the indexes stood when it was read.
    complete: bool,
    parts: Vec<String>,
}

impl Print {
    /// Reads the shadow's, in one statement.
    ///
    /// # Errors
    /// `SourceChanged` where it is gone.
    pub(crate) async fn read_shadow(session: &Session, spec: &RunSpec) -> DbResult<Self> {
        let object = format!("{}.{}", spec.schema, spec.table);
        let sql = format!(
            "SELECT c.oid, {} FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass({})",
            parts_sql(spec)?.join(", "),
            literal(&places(spec)?.shadow)?
        );
        let row = first(session, &sql, "reading the shape of the shadow of", &object).await?;
        let Some(row) = row else { return Err(changed(spec, "it is gone")) };
        let parts = (1..=PARTS.len()).map(|part| text(&row, part)).collect();
        Ok(Self { oid: text(&row, 0), complete: false, parts })
    }

    fn encode(&self) -> String {
        let complete = if self.complete { "complete" } else { "bare" };
        let head = [self.oid.as_str(), complete];
        let parts = self.parts.iter().map(String::as_str);
        head.into_iter().chain(parts).collect::<Vec<_>>().join("\u{1e}")
    }

    fn decode(text: &str) -> Option<Self> {
        let mut parts = text.split('\u{1e}').map(str::to_owned);
        let (oid, complete) = (parts.next()?, parts.next()? == "complete");
        Some(Self { oid, complete, parts: parts.collect() })
    }

    /// Compares with what was kept.
    ///
    /// # Errors
    /// `SourceChanged`, saying what changed.
    pub(crate) fn ensure_same(&self, kept: &Self, spec: &RunSpec) -> DbResult<()> {
        match self.difference(kept) {
            None => Ok(()),
            Some(what) => Err(changed(spec, &what)),
        }
    }

    fn difference(&self, kept: &Self) -> Option<String> {
        if self.oid != kept.oid {
            return Some("another table stands in its place".to_owned());
        }
        let compared = if kept.complete { PARTS.len() } else { ALWAYS };
        let pairs = self.parts.iter().zip(&kept.parts).zip(PARTS).take(compared);
        for ((now, before), name) in pairs {
            if now == before {
                continue;
            }
            let (now, before): (Vec<_>, Vec<_>) = (now.lines().collect(), before.lines().collect());
            let gone = before.iter().find(|line| !now.contains(line));
            let added = now.iter().find(|line| !before.contains(line));
            return Some(match (gone, added) {
                (Some(line), _) => format!("its {name}: it no longer has: {line}"),
                (None, Some(line)) => format!("its {name}: it was not made with: {line}"),
                (None, None) => format!("its {name} stand in another order"),
            });
        }
        None
    }
}

fn changed(spec: &RunSpec, what: &str) -> DbError {
    let object = format!("{}.{}", spec.schema, spec.table);
    DbError::new(ErrorKind::SourceChanged, "checking the shadow of", object)
        .said(format!("somebody changed the table that is being filled: {what}"))
        .help(
            "It must not take the place of the table: abort this run and start it again. Nothing of \
             the source was touched",
        )
}

/// One expression a part, each a line a thing.
fn parts_sql(spec: &RunSpec) -> DbResult<[String; 6]> {
    let ours = literal(&format!("{}_", names::private_schema(&spec.run_id)))?;
    let lines = |line: &str, from: &str, order: &str| {
        format!(
            "(SELECT pg_catalog.string_agg(pg_catalog.translate({line}, E'\\n\\r', '  '), E'\\n' ORDER BY \
             {order}) FROM {from})"
        )
    };
    let constraints = |which: &str| {
        lines(
            "pg_catalog.concat_ws(' ', pg_catalog.quote_ident(k.conname), \
             pg_catalog.pg_get_constraintdef(k.oid), CASE WHEN NOT k.convalidated THEN 'not validated' END)",
            &format!("pg_catalog.pg_constraint k WHERE k.conrelid = c.oid AND {which}"),
            "k.conname",
        )
    };
    let columns = "pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT \
                   a.attisdropped";
    Ok([
        lines(
            "pg_catalog.concat_ws(' ', pg_catalog.quote_ident(a.attname), \
             pg_catalog.format_type(a.atttypid, a.atttypmod), a.attcollation, a.attidentity, \
             a.attgenerated, (SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid) FROM \
             pg_catalog.pg_attrdef d WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum), a.attacl)",
            columns,
            "a.attnum",
        ),
        "pg_catalog.concat_ws(' ', c.relkind, c.relpersistence, c.relam, c.relrowsecurity, \
         c.relforcerowsecurity, pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(c.relowner)), c.relacl, \
         c.reloptions)"
            .to_owned(),
        constraints("k.contype = 'c'"),
        lines(
            "pg_catalog.concat_ws(' ', pg_catalog.pg_get_triggerdef(t.oid), t.tgenabled)",
            &format!(
                "pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND NOT \
                 pg_catalog.starts_with(t.tgname, {ours})"
            ),
            "t.tgname",
        ),
        format!(
            "pg_catalog.concat_ws(E'\\n', {}, {})",
            constraints("k.contype NOT IN ('c', 'f', 'n')"),
            lines(
                "pg_catalog.quote_ident(a.attname) || ' NOT NULL'",
                &format!("{columns} AND a.attnotnull"),
                "a.attnum"
            )
        ),
        // What is being built in the place of another is not valid yet.
        lines(
            "pg_catalog.concat_ws(' ', pg_catalog.quote_ident(x.relname), CASE WHEN i.indisunique THEN \
             'UNIQUE' END, CASE WHEN i.indisprimary THEN 'PRIMARY' END, \
             pg_catalog.substring(pg_catalog.pg_get_indexdef(x.oid), ' (USING .*)$'), x.reloptions)",
            "pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid WHERE i.indrelid = \
             c.oid AND i.indisvalid",
            "x.relname",
        ),
    ])
}

/// Under what source and shadow of this way are noted.
fn keys(spec: &RunSpec) -> (&'static str, &'static str) {
    match spec.way {
        Way::Forward => (OLD, NEW),
        Way::Back => (NEW, OLD),
    }
}

fn way_name(spec: &RunSpec) -> &'static str {
    match spec.way {
        Way::Forward => "forward",
        Way::Back => "back",
    }
}

/// Notes that the swap of this way is made; in its own transaction, so that nobody who exchanges the
/// tables by hand passes for it.
///
/// # Errors
/// A name that no identifier can have.
pub(crate) fn stands_sql(state_schema: &str, spec: &RunSpec) -> DbResult<String> {
    store::print_sql(state_schema, &spec.run_id, STANDS, way_name(spec))
}

/// Notes the table that went away in a swap that can be taken back, as it stands from then on: it is the
/// shadow of the other way. In the swap's own transaction, which has moved and spelled anew what hangs on it.
///
/// # Errors
/// The server's.
pub(crate) async fn note_gone(
    session: &Session,
    state_schema: &str,
    spec: &RunSpec,
) -> DbResult<String> {
    let other = spec.on_way(spec.way.turned());
    let print = Print { complete: true, ..Print::read_shadow(session, &other).await? };
    store::print_sql(state_schema, &spec.run_id, keys(&other).1, &print.encode())
}

impl Control {
    /// Notes the shadow as it is now. `complete`: its indexes stand.
    pub(crate) async fn note_shadow(&self, spec: &RunSpec, complete: bool) -> DbResult<()> {
        let print = Print { complete, ..Print::read_shadow(&self.session, spec).await? };
        self.save_print(&spec.run_id, keys(spec).1, &print.encode()).await
    }

    /// Notes which table is the source.
    pub(crate) async fn note_source(&self, spec: &RunSpec) -> DbResult<()> {
        let oid = self.oid_at(&places(spec)?.source).await?.unwrap_or_default();
        let print = Print { oid, complete: false, parts: Vec::new() };
        self.save_print(&spec.run_id, keys(spec).0, &print.encode()).await
    }

    /// The shadow as it was noted; `None` where it was not, by an older version.
    pub(crate) async fn shadow_kept(&self, spec: &RunSpec) -> DbResult<Option<Print>> {
        let kept = self.load_print(&spec.run_id, keys(spec).1).await?;
        Ok(kept.as_deref().and_then(Print::decode))
    }

    /// Checks that the shadow is the table that was noted. Where both tables were live there is nothing to
    /// begin again.
    ///
    /// # Errors
    /// `SourceChanged`, saying what changed.
    pub(crate) async fn check_shadow(&self, spec: &RunSpec) -> DbResult<()> {
        let Some(kept) = self.shadow_kept(spec).await? else { return Ok(()) };
        let now = Print::read_shadow(&self.session, spec).await;
        let mut same = now.and_then(|now| now.ensure_same(&kept, spec));
        if let Err(error) = &mut same
            && error.kind == ErrorKind::SourceChanged
            && self.load_print(&spec.run_id, STANDS).await?.is_some()
        {
            error.help = Some(NOT_TO_BE_FOLLOWED.to_owned());
        }
        same
    }

    /// What the names tell, held against what the tables are: whoever exchanges them by hand must not pass
    /// for our swap, nor have the rows dropped in the shadow's place.
    pub(crate) async fn proven(
        &self,
        spec: &RunSpec,
        checkpoint: &Checkpoint,
        by_name: SwapState,
    ) -> DbResult<SwapState> {
        // Later the swap is on record.
        if checkpoint.phase > Phase::Swap {
            return Ok(by_name);
        }
        let (source_key, shadow_key) = keys(spec);
        let Some(source) = self.noted_oid(spec, source_key).await? else { return Ok(by_name) };
        let Some(shadow) = self.noted_oid(spec, shadow_key).await? else { return Ok(by_name) };
        let stands = self.load_print(&spec.run_id, STANDS).await?;
        let is_made = stands.as_deref() == Some(way_name(spec));
        let places = places(spec)?;
        let why = match by_name {
            SwapState::NotSwapped => {
                let exchanged = self.oid_at(&places.source).await?.as_ref() == Some(&shadow)
                    || self.oid_at(&places.shadow).await?.as_ref() == Some(&source);
                match (exchanged, is_made) {
                    (false, false) => return Ok(by_name),
                    (true, _) => "stand in each other's places",
                    (false, true) => "stand as before the swap, which was made",
                }
            }
            SwapState::Swapped if is_made => return Ok(by_name),
            SwapState::Swapped => "were exchanged, and not by the run's swap",
            SwapState::Unclear(_) => return Ok(by_name),
        };
        Ok(SwapState::Unclear(format!(
            "{}.{} and the table that is being filled {why}: somebody moved them. What was the table when \
             the run began has the OID {source}. Move both back, then run the same command again",
            spec.schema, spec.table
        )))
    }

    /// The table that holds the rows is never dropped, wherever it stands.
    ///
    /// # Errors
    /// `Ambiguous` where it stands in the shadow's or the retired table's place.
    pub(crate) async fn refuse_to_drop_the_rows(&self, spec: &RunSpec) -> DbResult<()> {
        let Some(source) = self.noted_oid(spec, keys(spec).0).await? else { return Ok(()) };
        let places = places(spec)?;
        for place in [&places.shadow, &places.retired] {
            if self.oid_at(place).await?.as_ref() == Some(&source) {
                return Err(DbError::new(
                    ErrorKind::Ambiguous,
                    "removing the run's objects",
                    format!("{}.{}", spec.schema, spec.table),
                )
                .help(format!(
                    "{place} is the table that holds the rows: somebody moved it. Look at both tables \
                     before you remove anything"
                )));
            }
        }
        Ok(())
    }

    async fn noted_oid(&self, spec: &RunSpec, key: &str) -> DbResult<Option<String>> {
        let kept = self.load_print(&spec.run_id, key).await?;
        Ok(kept.as_deref().and_then(Print::decode).map(|print| print.oid))
    }

    /// The OID of the table at this place, quoted; `None` where there is none.
    async fn oid_at(&self, place: &str) -> DbResult<Option<String>> {
        let sql = format!("SELECT pg_catalog.to_regclass({})::pg_catalog.oid", literal(place)?);
        let row = first(&self.session, &sql, "looking for", place).await?;
        Ok(row.and_then(|row| optional_text(&row, 0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_named() {
        let parts = ["id integer\nv text", "r p", "", "", "t_pkey PRIMARY KEY (id)", "t_u UNIQUE"];
        let kept =
            Print { oid: "7".into(), complete: true, parts: parts.map(str::to_owned).to_vec() };
        assert_eq!(Print::decode(&kept.encode()), Some(kept.clone()));
        assert_eq!(kept.difference(&kept.clone()), None);
        let with = |part: usize, text: &str| {
            let mut print = kept.clone();
            print.parts[part] = text.to_owned();
            print
        };
        for (other, words) in [
            (with(0, "id integer"), "columns: it no longer has: v text"),
            (with(0, "id integer\nv text\nw int"), "it was not made with: w int"),
            (with(5, ""), "indexes: it no longer has: t_u UNIQUE"),
            (Print { oid: "8".into(), ..kept.clone() }, "another table"),
        ] {
            let what = other.difference(&kept).unwrap();
            assert!(what.contains(words), "{what}");
        }
        // Before they are built nobody asks for indexes.
        let bare = Print { complete: false, ..with(5, "") };
        assert_eq!(kept.difference(&bare), None);
    }
}
