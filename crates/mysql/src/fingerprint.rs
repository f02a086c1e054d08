//! Is the source still the table it was? Table ids, definition and capture triggers.
//!
//! TRUNCATE changes only InnoDB's table id and fires no trigger; ALTER changes the definition; a
//! trigger may be dropped by anybody. Read when the triggers are installed, before each round, and
//! once more under the swap's lock. The names of table and constraints are no part of it: they change
//! when the table is renamed, and the table that waits for its turn is noted under another name.

use mysql_async::Conn;
use underpin_core::plan::RunSpec;
use underpin_core::way::Way;
use underpin_dialect::{DbError, DbResult, ErrorKind};

use crate::flavor::Capabilities;
use crate::query::{first, literal, quote_table, rows, text};

/// What a table is made of, as far as it must stay the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    /// InnoDB ids of the table or of each partition.
    pub(crate) ids: String,
    /// The definition without the counter.
    pub(crate) definition: String,
    /// Capture triggers: names, events and bodies.
    pub(crate) triggers: String,
}

impl Fingerprint {
    /// Reads that of the source. Under LOCK TABLES this needs no further lock.
    pub(crate) async fn read(
        conn: &mut Conn,
        capabilities: &Capabilities,
        spec: &RunSpec,
    ) -> DbResult<Self> {
        Self::read_as(conn, capabilities, spec, &spec.table).await
    }

    /// Reads that of the table that stands under the name `table` now.
    pub(crate) async fn read_as(
        conn: &mut Conn,
        capabilities: &Capabilities,
        spec: &RunSpec,
        table: &str,
    ) -> DbResult<Self> {
        Ok(Self {
            ids: table_ids(conn, capabilities, &spec.schema, table).await?,
            definition: definition(conn, &spec.schema, table).await?,
            triggers: triggers(conn, spec, table).await?,
        })
    }

    /// The form in which it is kept with the run.
    pub(crate) fn encode(&self) -> String {
        [&self.ids, &self.definition, &self.triggers].map(String::as_str).join("\u{1e}")
    }

    fn decode(text: &str) -> Option<Self> {
        let mut parts = text.split('\u{1e}').map(str::to_owned);
        Some(Self { ids: parts.next()?, definition: parts.next()?, triggers: parts.next()? })
    }

    /// Compares with what was kept.
    ///
    /// # Errors
    /// `SourceChanged`, saying what changed.
    pub(crate) fn ensure_same(&self, kept: &str, way: Way, object: &str) -> DbResult<()> {
        let (since, help) = match way {
            Way::Forward => (
                "since the run began",
                "The copy can no longer be trusted: abort this run and start it again. Nothing of \
                 the source was touched",
            ),
            Way::Back => (
                "since the swap",
                "The old table cannot be brought up to it any more, and the table stays as it is: \
                 `underpin abort` leaves the way back, `underpin finish` ends the run",
            ),
        };
        let changed = |what: &str| {
            Err(DbError::new(ErrorKind::SourceChanged, "checking the source", object)
                .said(format!("{what} {since}"))
                .help(help))
        };
        let Some(kept) = Self::decode(kept) else {
            return changed("its identity was not recorded");
        };
        if nameless(&kept.definition) != nameless(&self.definition) {
            changed("somebody altered the table")
        } else if nameless_ids(&kept.ids) != nameless_ids(&self.ids) {
            changed("the table was truncated or rebuilt")
        } else if kept.triggers != self.triggers {
            changed("the capture triggers were dropped or changed")
        } else {
            Ok(())
        }
    }
}

/// The definition without the table's name, and without the names of constraints: the server makes
/// those after the table's and renames them with it.
fn nameless(definition: &str) -> String {
    let columns = definition.split_once(" (\n").map_or(definition, |(_, columns)| columns);
    without_constraint_names(columns)
}

/// The lines of a definition without the names of constraints, which a RENAME changes.
pub(crate) fn without_constraint_names(columns: &str) -> String {
    let mut parts = columns.split("CONSTRAINT `");
    let mut bare = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        bare.push_str("CONSTRAINT ");
        // A backtick in a name is doubled.
        let name = part.replace("``", "__");
        let behind = name.find('`').map_or(part.len(), |at| at + 1);
        bare.push_str(part.get(behind..).unwrap_or_default());
    }
    bare
}

/// The ids without the table's name; that of a partition stays.
fn nameless_ids(ids: &str) -> Vec<&str> {
    let bare = |line: &'_ str| {
        let name = line.find(':').unwrap_or(line.len());
        line.find('#').unwrap_or(name)
    };
    ids.split(',').map(|line| line.get(bare(line)..).unwrap_or(line)).collect()
}

/// Ids of the table in InnoDB's own catalogue: one line a partition.
pub(crate) async fn table_ids(
    conn: &mut Conn,
    capabilities: &Capabilities,
    schema: &str,
    table: &str,
) -> DbResult<String> {
    let object = format!("{schema}.{table}");
    let name = format!("{}/{}", file_pattern(schema), file_pattern(table));
    // Where the server folds names (lower_case_table_names), it keeps them in lower case.
    let folded =
        format!("{}/{}", file_pattern(&schema.to_lowercase()), file_pattern(&table.to_lowercase()));
    let sql = format!(
        "SELECT NAME, TABLE_ID, SPACE FROM {} WHERE NAME REGEXP {} ORDER BY NAME",
        capabilities.innodb_tables_view,
        literal(&format!("(?-i)^({name}|{folded})(#[pP]#.*)?$"))?,
    );
    let found = rows(conn, &sql, "reading the identity of", &object).await?;
    if found.is_empty() {
        return Err(DbError::new(ErrorKind::NotFound, "reading the identity of", object).help(
            "InnoDB's catalogue shows no such table; the account needs the PROCESS privilege to see it",
        ));
    }
    let lines: Vec<String> = found
        .iter()
        .map(|row| format!("{}:{}:{}", text(row, 0), text(row, 1), text(row, 2)))
        .collect();
    Ok(lines.join(","))
}

/// A regular expression for the way InnoDB spells a name: ASCII letters, digits and underscores as they
/// are, most others as `@` and four hex digits, the letters of some scripts as `@` and two characters
/// that only the server knows.
pub(crate) fn file_pattern(name: &str) -> String {
    let mut pattern = String::new();
    for c in name.chars() {
        let code = u32::from(c);
        let shortened =
            [0xC0..=0x5FF, 0x1E00..=0x1FFF, 0x2160..=0x217F, 0x24B0..=0x24EF, 0xFF20..=0xFF5F]
                .iter()
                .any(|range| range.contains(&code));
        match c {
            '_' => pattern.push(c),
            c if c.is_ascii_alphanumeric() => pattern.push(c),
            _ if shortened => pattern.push_str(&format!("@(..|{code:04x})")),
            _ => pattern.push_str(&format!("@{code:04x}")),
        }
    }
    pattern
}

/// The table's definition without its counter, which every insert moves.
pub(crate) async fn definition(conn: &mut Conn, schema: &str, table: &str) -> DbResult<String> {
    let object = format!("{schema}.{table}");
    let sql = format!("SHOW CREATE TABLE {}", quote_table(schema, table)?);
    let row = first(conn, &sql, "reading the definition of", &object).await?;
    let create = row.map(|row| text(&row, 1)).unwrap_or_default();
    Ok(without_counter(&create))
}

/// A short hash of the definition (FNV-1a, 64 bits), for the history: whether two are the same, no more.
///
/// # Errors
/// The server's.
pub(crate) async fn short(conn: &mut Conn, schema: &str, table: &str) -> DbResult<String> {
    let definition = definition(conn, schema, table).await?;
    let hash = definition.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    Ok(format!("{hash:016x}"))
}

fn without_counter(create: &str) -> String {
    // The options stand behind the columns, the counter before whatever is quoted, as the comment is:
    // that may hold the word too.
    let options = create.find("\n) ").unwrap_or(create.len());
    let (columns, options) = create.split_at(options);
    let Some((head, rest)) = options.split_once(" AUTO_INCREMENT=") else {
        return create.to_owned();
    };
    if head.contains('\'') {
        return create.to_owned();
    }
    let digits = rest.chars().take_while(char::is_ascii_digit).count();
    if digits == 0 {
        return create.to_owned();
    }
    format!("{columns}{head}{}", rest.get(digits..).unwrap_or_default())
}

/// The capture triggers as the catalogue shows them.
async fn triggers(conn: &mut Conn, spec: &RunSpec, table: &str) -> DbResult<String> {
    let object = format!("{}.{table}", spec.schema);
    let names: Vec<String> =
        spec.names.triggers.iter().map(|name| literal(name)).collect::<DbResult<_>>()?;
    let sql = format!(
        "SELECT TRIGGER_NAME, ACTION_TIMING, EVENT_MANIPULATION, ACTION_STATEMENT \
         FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = {} AND EVENT_OBJECT_TABLE = {} \
         AND TRIGGER_NAME IN ({}) ORDER BY TRIGGER_NAME",
        literal(&spec.schema)?,
        literal(table)?,
        names.join(", ")
    );
    let found = rows(conn, &sql, "reading the triggers of", &object).await?;
    let lines: Vec<String> = found
        .iter()
        .map(|row| format!("{} {} {} {}", text(row, 0), text(row, 1), text(row, 2), text(row, 3)))
        .collect();
    Ok(lines.join(";"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_spelled_as_innodb_spells_them() {
        assert_eq!(file_pattern("t_1"), "t_1");
        assert_eq!(file_pattern("a-b$"), "a@002db@0024");
        assert_eq!(file_pattern("日é"), "@65e5@(..|00e9)");
    }

    #[test]
    fn the_counter_is_no_part_of_the_definition() {
        let create =
            "CREATE TABLE `t` (\n  `id` int\n) ENGINE=InnoDB AUTO_INCREMENT=42 COMMENT='x'";
        assert_eq!(
            without_counter(create),
            "CREATE TABLE `t` (\n  `id` int\n) ENGINE=InnoDB COMMENT='x'"
        );
        let create = "CREATE TABLE `t` (\n  `id` int\n) ENGINE=InnoDB AUTO_INCREMENT=4 \
                      COMMENT='x AUTO_INCREMENT=3'";
        assert_eq!(
            without_counter(create),
            "CREATE TABLE `t` (\n  `id` int\n) ENGINE=InnoDB COMMENT='x AUTO_INCREMENT=3'"
        );
        // an empty table's counter is not shown
        let create = "CREATE TABLE `t` (\n  `id` int\n) ENGINE=InnoDB COMMENT='x AUTO_INCREMENT=3'";
        assert_eq!(without_counter(create), create);
    }

    #[test]
    fn each_kind_of_change_is_named() {
        let print =
            Fingerprint { ids: "d/t:7:8".into(), definition: "t\nd".into(), triggers: "t".into() };
        assert!(print.ensure_same(&print.encode(), Way::Forward, "t").is_ok());
        for (other, word) in [
            (Fingerprint { ids: "d/t:9:8".into(), ..print.clone() }, "truncated"),
            (Fingerprint { definition: "t\ne".into(), ..print.clone() }, "altered"),
            (Fingerprint { triggers: String::new(), ..print.clone() }, "triggers"),
        ] {
            for (way, since) in [(Way::Forward, "since the run"), (Way::Back, "since the swap")] {
                let error = other.ensure_same(&print.encode(), way, "t").unwrap_err().to_string();
                assert!(error.contains(word) && error.contains(since), "{error}");
            }
        }
    }

    #[test]
    fn a_table_that_was_renamed_is_the_same() {
        let print = |table: &str, file: &str| Fingerprint {
            ids: format!("d/{file}#p#p0:7:8,d/{file}#p#p1:9:10"),
            definition: format!(
                "CREATE TABLE `{table}` (\n  `t` int,\n  CONSTRAINT `{table}_chk_1` CHECK (`t` > 1)\n)"
            ),
            triggers: String::new(),
        };
        let noted = print("t~up_new", "t@007eup_new").encode();
        let renamed = print("t", "t");
        assert!(renamed.ensure_same(&noted, Way::Back, "t").is_ok());
        let rebuilt = Fingerprint { ids: renamed.ids.replace(":9:", ":11:"), ..renamed.clone() };
        assert!(rebuilt.ensure_same(&noted, Way::Back, "t").is_err());
        let altered = renamed.definition.replace("> 1", "> 2");
        let altered = Fingerprint { definition: altered, ..renamed };
        assert!(altered.ensure_same(&noted, Way::Back, "t").is_err());
    }
}
