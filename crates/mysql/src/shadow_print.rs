//! Is the shadow still the table that was made, and which table is which? Ids and shape of both, noted
//! with the run.
//!
//! Somebody may drop an index of the shadow, or a unique key, or add a column: swapped like that it would
//! not be what was asked for. And somebody may exchange the tables by hand: then a name no longer tells
//! which of them holds the rows. Tables are noted by the shape that they have, not by their name, so that
//! the same notes serve both ways.

use mysql_async::Conn;
use underpin_core::checkpoint::{Checkpoint, Phase};
use underpin_core::machine::SwapState;
use underpin_core::plan::RunSpec;
use underpin_core::way::Way;
use underpin_dialect::{DbError, DbResult, ErrorKind};

use crate::control::Control;
use crate::fingerprint::{self, Fingerprint};
use crate::flavor::Capabilities;
use crate::inspect::table_exists;

/// Under which a table is noted: of the old shape.
pub(crate) const OLD: &str = "old";

/// Likewise: of the new shape.
pub(crate) const NEW: &str = "new";

/// What a table is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Print {
    /// InnoDB's ids of the table or of each partition; a RENAME keeps them.
    pub(crate) ids: String,
    /// The definition without name and counter.
    definition: String,
}

impl Print {
    /// What a fingerprint of the source tells.
    pub(crate) fn of(source: &Fingerprint) -> Self {
        Self { ids: nameless(&source.ids), definition: body(&source.definition) }
    }

    /// Reads the shadow's. Under LOCK TABLES this needs no further lock.
    pub(crate) async fn read_shadow(
        conn: &mut Conn,
        capabilities: &Capabilities,
        spec: &RunSpec,
    ) -> DbResult<Self> {
        let (schema, name) = (&spec.schema, &spec.names.shadow);
        let read = async {
            let definition = fingerprint::definition(conn, schema, name).await?;
            let ids = fingerprint::table_ids(conn, capabilities, schema, name).await?;
            Ok(Self { ids: nameless(&ids), definition: body(&definition) })
        };
        read.await.map_err(|error: DbError| match error.kind {
            ErrorKind::NotFound => changed(spec, "it is gone"),
            _ => error,
        })
    }

    fn encode(&self) -> String {
        [&self.ids, &self.definition].map(String::as_str).join("\u{1e}")
    }

    fn decode(text: &str) -> Option<Self> {
        let (ids, definition) = text.split_once('\u{1e}')?;
        let definition = fingerprint::without_constraint_names(definition);
        Some(Self { ids: ids.to_owned(), definition })
    }

    /// Compares with what was kept.
    ///
    /// # Errors
    /// `SourceChanged`, saying what changed.
    pub(crate) fn ensure_same(&self, kept: &Self, spec: &RunSpec) -> DbResult<()> {
        let difference = match spec.way {
            Way::Forward => self.difference(kept, &spec.deferred_indexes),
            // Rows that are new may need a DEFAULT in the old table, which a person gives by hand.
            Way::Back => self.without_defaults().difference(&kept.without_defaults(), &[]),
        };
        match difference {
            None => Ok(()),
            Some(what) => Err(changed(spec, &what)),
        }
    }

    fn without_defaults(&self) -> Self {
        let bare = |line: &str| {
            let is_column = line.trim_start().starts_with('`');
            let cut = line.split_once(" DEFAULT ").filter(|_| is_column);
            cut.map_or(line, |(head, _)| head).trim_end_matches(',').to_owned()
        };
        let lines: Vec<String> = self.definition.lines().map(bare).collect();
        Self { ids: self.ids.clone(), definition: lines.join("\n") }
    }

    /// What changed since `kept`. Indexes that are built `later` may stand or not until they are noted.
    fn difference(&self, kept: &Self, later: &[String]) -> Option<String> {
        if self.definition == kept.definition {
            let same = self.ids == kept.ids;
            return (!same).then(|| "it was truncated, rebuilt or replaced".to_owned());
        }
        let (now, before) = (lines(&self.definition), lines(&kept.definition));
        if let Some(line) = before.iter().find(|line| !now.contains(line)) {
            return Some(format!("it no longer has: {line}"));
        }
        let is_later = |line: &&&str| later.iter().any(|index| index == **line);
        let mut added = now.iter().filter(|line| !before.contains(line) && !is_later(line));
        if let Some(line) = added.next() {
            return Some(format!("it has what it was not made with: {line}"));
        }
        let in_order = now.iter().filter(|line| before.contains(line)).eq(before.iter());
        (!in_order).then(|| "its columns stand in another order".to_owned())
    }
}

fn changed(spec: &RunSpec, what: &str) -> DbError {
    let object = format!("{}.{}", spec.schema, spec.names.shadow);
    DbError::new(ErrorKind::SourceChanged, "checking the shadow", object)
        .said(format!("somebody changed the table that is being filled: {what}"))
        .help(match spec.way {
            Way::Forward => {
                "It must not take the place of the table: abort this run and start it again. Nothing of \
                 the source was touched"
            }
            Way::Back => {
                "It must not take the place of the table, which stays as it is: `underpin abort` leaves \
                 the way back, `underpin finish` ends the run"
            }
        })
}

/// The ids without the names, which a RENAME changes; the partitions' stay.
pub(crate) fn nameless(ids: &str) -> String {
    let line = |line: &str| -> String {
        let at = line.find(['#', ':']).unwrap_or(0);
        line.get(at..).unwrap_or_default().to_owned()
    };
    ids.split(',').map(line).collect::<Vec<_>>().join(",")
}

/// A definition without its first line, which holds the name, and without the names of constraints, which
/// follow it.
fn body(definition: &str) -> String {
    let body = definition.split_once('\n').map_or("", |(_, body)| body);
    fingerprint::without_constraint_names(body)
}

fn lines(definition: &str) -> Vec<&str> {
    let bare = |line| str::trim(line).trim_end_matches(',');
    definition.lines().map(bare).collect()
}

/// The ids that a print on record tells, and of which shape; `None` where it is none of a table.
pub(crate) fn noted(what: &str, print: &str) -> Option<(String, &'static str)> {
    let key = [OLD, NEW].into_iter().find(|key| *key == what)?;
    Print::decode(print).map(|print| (print.ids, key))
}

/// Under what source and shadow of this way are noted.
fn keys(spec: &RunSpec) -> (&'static str, &'static str) {
    match spec.way {
        Way::Forward => (OLD, NEW),
        Way::Back => (NEW, OLD),
    }
}

impl Control {
    /// Notes the shadow as it is now: complete, as far as it is to be.
    pub(crate) async fn note_shadow(&mut self, spec: &RunSpec) -> DbResult<()> {
        let capabilities = self.session.capabilities.clone();
        let print = Print::read_shadow(&mut self.session.conn, &capabilities, spec).await?;
        self.save_print(&spec.run_id, keys(spec).1, &print.encode()).await
    }

    /// Notes the source as it was when its triggers were installed.
    pub(crate) async fn note_source(&mut self, spec: &RunSpec) -> DbResult<()> {
        match self.source_seen.take() {
            Some(print) => self.save_print(&spec.run_id, keys(spec).0, &print.encode()).await,
            None => Ok(()),
        }
    }

    /// The shadow as it was noted; `None` where it was not, by an older version.
    pub(crate) async fn shadow_kept(&mut self, spec: &RunSpec) -> DbResult<Option<Print>> {
        let kept = self.load_print(&spec.run_id, keys(spec).1).await?;
        Ok(kept.as_deref().and_then(Print::decode))
    }

    /// Checks that the shadow is the table that was noted.
    ///
    /// # Errors
    /// `SourceChanged`, saying what changed.
    pub(crate) async fn check_shadow(&mut self, spec: &RunSpec) -> DbResult<()> {
        let Some(kept) = self.shadow_kept(spec).await? else { return Ok(()) };
        let capabilities = self.session.capabilities.clone();
        let now = Print::read_shadow(&mut self.session.conn, &capabilities, spec).await?;
        now.ensure_same(&kept, spec)
    }

    /// What the names tell, held against what the tables are: whoever exchanges them by hand must not pass
    /// for our swap, nor have the rows dropped under the shadow's name.
    pub(crate) async fn proven(
        &mut self,
        spec: &RunSpec,
        checkpoint: &Checkpoint,
        by_name: SwapState,
    ) -> DbResult<SwapState> {
        // Later the swap is on record, and the tables are the user's to rebuild.
        if checkpoint.phase > Phase::Swap {
            return Ok(by_name);
        }
        let (source_key, shadow_key) = keys(spec);
        let Some(source) = self.noted_ids(spec, source_key).await? else { return Ok(by_name) };
        let Some(shadow) = self.noted_ids(spec, shadow_key).await? else { return Ok(by_name) };
        let at_source = self.ids_of(spec, &spec.table).await?;
        let why = match by_name {
            SwapState::NotSwapped => {
                let at_shadow = self.ids_of(spec, &spec.names.shadow).await?;
                if at_source.as_ref() == Some(&shadow) || at_shadow.as_ref() == Some(&source) {
                    "bear each other's names"
                } else {
                    return Ok(by_name);
                }
            }
            SwapState::Swapped if checkpoint.phase < Phase::Swap => {
                "were exchanged before the run had come to its swap"
            }
            SwapState::Swapped => {
                let at_retired = self.ids_of(spec, &spec.names.retired).await?;
                if at_retired.as_ref() == Some(&source) {
                    return Ok(by_name);
                }
                "do not stand as the swap would have left them"
            }
            SwapState::Unclear(_) => return Ok(by_name),
        };
        Ok(SwapState::Unclear(format!(
            "{}.{} and the table that is being filled {why}: somebody renamed them. {} is under \
             {}. Give both back their names, then run the same command again",
            spec.schema,
            spec.table,
            "What was the table when the run began",
            self.place_of(spec, &source).await?
        )))
    }

    /// Under which of the run's names the table of these ids stands.
    async fn place_of(&mut self, spec: &RunSpec, ids: &str) -> DbResult<String> {
        for name in [&spec.table, &spec.names.shadow, &spec.names.retired] {
            if self.ids_of(spec, name).await?.as_deref() == Some(ids) {
                return Ok(format!("the name {name}"));
            }
        }
        Ok("none of the run's names".to_owned())
    }

    /// The table that holds the rows is never dropped, whatever its name says. `made`: the swap of this way
    /// has been made.
    ///
    /// # Errors
    /// `Ambiguous` where the name is borne by it.
    pub(crate) async fn refuse_to_drop_the_rows(
        &mut self,
        spec: &RunSpec,
        name: &str,
        made: bool,
    ) -> DbResult<()> {
        let (source_key, shadow_key) = keys(spec);
        let key = if made { shadow_key } else { source_key };
        let Some(noted) = self.noted_ids(spec, key).await? else { return Ok(()) };
        if self.ids_of(spec, name).await? != Some(noted) {
            return Ok(());
        }
        let object = format!("{}.{name}", spec.schema);
        Err(DbError::new(ErrorKind::Ambiguous, "removing the run's objects", object).help(
            "By its identity this is the table that holds the rows: somebody renamed it. Look at both \
             tables before you remove anything",
        ))
    }

    async fn noted_ids(&mut self, spec: &RunSpec, key: &str) -> DbResult<Option<String>> {
        let kept = self.load_print(&spec.run_id, key).await?;
        Ok(kept.as_deref().and_then(Print::decode).map(|print| print.ids))
    }

    /// The ids of the table of this name; `None` where there is none.
    pub(crate) async fn ids_of(&mut self, spec: &RunSpec, name: &str) -> DbResult<Option<String>> {
        if !table_exists(&mut self.session, &spec.schema, name).await? {
            return Ok(None);
        }
        let capabilities = self.session.capabilities.clone();
        let conn = &mut self.session.conn;
        let ids = fingerprint::table_ids(conn, &capabilities, &spec.schema, name).await?;
        Ok(Some(nameless(&ids)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MADE: &str = "  `id` int NOT NULL,\n  `v` text,\n  PRIMARY KEY (`id`),\n  UNIQUE KEY `u` \
                        (`v`)\n) ENGINE=InnoDB";

    fn print(definition: &str) -> Print {
        Print { ids: ":1:1".into(), definition: definition.into() }
    }

    #[test]
    fn names_are_no_part_of_it() {
        assert_eq!(nameless("shop/t:7:8"), ":7:8");
        assert_eq!(nameless("shop/t#p#a:7:8,shop/t#p#b:9:10"), "#p#a:7:8,#p#b:9:10");
        assert_eq!(body("CREATE TABLE `t` (\n  `id` int\n)"), "  `id` int\n)");
    }

    #[test]
    fn what_changed_is_named() {
        let kept = print(MADE);
        assert_eq!(Print::decode(&kept.encode()), Some(kept.clone()));
        let later = ["KEY `later` (`v`)".to_owned()];
        let built = print(&MADE.replace("\n) ENGINE", ",\n  KEY `later` (`v`)\n) ENGINE"));
        assert_eq!(built.difference(&kept, &later), None);
        for (other, words) in [
            (
                print(&MADE.replace(",\n  UNIQUE KEY `u` (`v`)", "")),
                "no longer has: UNIQUE KEY `u`",
            ),
            (print(&MADE.replace("`v` text", "`v` text,\n  `w` int")), "not made with: `w` int"),
            (print(&MADE.replace("`v` text", "`v` blob")), "no longer has: `v` text"),
            (Print { ids: ":2:1".into(), ..kept.clone() }, "truncated, rebuilt or replaced"),
        ] {
            let what = other.difference(&kept, &later).unwrap();
            assert!(what.contains(words), "{what}");
        }
        assert_eq!(kept.difference(&kept.clone(), &later), None);
        // Once built it is noted, and then it must stay.
        assert!(kept.difference(&built, &later).is_some());
    }
}
