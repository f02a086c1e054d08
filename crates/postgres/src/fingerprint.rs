//! Is the source still the table it was? OID and file, definition, and capture triggers.
//!
//! Read when the triggers are installed, before each round, and once more under the swap's lock. The
//! definition holds everything that was carried to the shadow when it was made: what changes later
//! would be lost by the swap.

use underpin_core::plan::RunSpec;
use underpin_dialect::{DbError, DbResult, ErrorKind};

use crate::connect::Session;
use crate::dependents::Subject;
use crate::names;
use crate::query::{first, literal, quote_table, text};

/// Digits of a hash that people are shown.
const SHORT: usize = 12;

/// What a table is made of, as far as it must stay the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    /// The OID.
    oid: String,
    /// The file: TRUNCATE and rewrites change it.
    file: String,
    /// A sum over the catalogue rows.
    definition: String,
    /// Capture triggers: names, functions, and whether they fire always.
    triggers: String,
}

impl Fingerprint {
    /// Reads it in one statement.
    ///
    /// # Errors
    /// `SourceChanged` where the table is gone.
    pub(crate) async fn read(session: &Session, spec: &RunSpec) -> DbResult<Self> {
        let object = format!("{}.{}", spec.schema, spec.table);
        let table = literal(&quote_table(&spec.schema, &spec.table)?)?;
        let sql = format!(
            "SELECT c.oid, pg_catalog.pg_relation_filenode(c.oid), {}, {} FROM pg_catalog.pg_class c \
             WHERE c.oid = pg_catalog.to_regclass({table})",
            definition_sql(&names::private_schema(&spec.run_id))?,
            triggers_sql(spec)?
        );
        let row = first(session, &sql, "reading the identity of", &object).await?;
        let Some(row) = row else {
            return Err(changed(&object, "the table is gone, or has another name"));
        };
        Ok(Self {
            oid: text(&row, 0),
            file: text(&row, 1),
            definition: text(&row, 2),
            triggers: text(&row, 3),
        })
    }

    /// The form in which it is kept with the run.
    pub(crate) fn encode(&self) -> String {
        [&self.oid, &self.file, &self.definition, &self.triggers].map(String::as_str).join("\u{1e}")
    }

    fn decode(text: &str) -> Option<Self> {
        let mut parts = text.split('\u{1e}').map(str::to_owned);
        Some(Self {
            oid: parts.next()?,
            file: parts.next()?,
            definition: parts.next()?,
            triggers: parts.next()?,
        })
    }

    /// Compares with what was kept.
    ///
    /// # Errors
    /// `SourceChanged`, saying what changed.
    pub(crate) fn ensure_same(&self, kept: &str, object: &str) -> DbResult<()> {
        let Some(kept) = Self::decode(kept) else {
            return Err(changed(object, "its identity was never recorded"));
        };
        if kept.oid != self.oid {
            Err(changed(object, "another table bears its name since the run began"))
        } else if kept.definition != self.definition {
            Err(changed(object, "somebody altered the table since the run began"))
        } else if kept.triggers != self.triggers {
            Err(changed(
                object,
                "the capture triggers were dropped, changed or disabled since the run began",
            ))
        } else if kept.file != self.file {
            Err(changed(object, "the table was truncated or rewritten since the run began"))
        } else {
            Ok(())
        }
    }

    /// Whether the file alone is another one.
    pub(crate) fn has_another_file(&self, kept: &str) -> bool {
        Self::decode(kept).is_some_and(|kept| {
            kept.file != self.file && Self { file: self.file.clone(), ..kept } == *self
        })
    }
}

fn changed(object: &str, what: &str) -> DbError {
    DbError::new(ErrorKind::SourceChanged, "checking the source", object).said(what).help(
        "The copy can no longer be trusted: abort this run and start it again. Nothing of the source \
         was touched",
    )
}

/// A short hash of a table's definition, whatever run there is on it; `None` where there is no such table.
///
/// # Errors
/// The server's.
pub(crate) async fn short(
    session: &Session,
    schema: &str,
    table: &str,
) -> DbResult<Option<String>> {
    let name = literal(&quote_table(schema, table)?)?;
    let sql = format!(
        "SELECT {} FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass({name})",
        definition_sql(names::ANY_RUN)?
    );
    let row = first(session, &sql, "reading the definition of", table).await?;
    Ok(row.map(|row| text(&row, 0).chars().take(SHORT).collect()))
}

/// One hash over all that the shadow was made from; triggers whose names begin with `ours` left out.
fn definition_sql(ours: &str) -> DbResult<String> {
    let ours = literal(ours)?;
    // Each part in an order of its own, so that equal tables give equal texts.
    let parts = [
        "pg_catalog.concat_ws(' ', c.relowner, c.relpersistence, c.relkind, c.relam, c.reltablespace, \
         c.relreplident, c.relrowsecurity, c.relforcerowsecurity, c.relacl, c.reloptions, c.reltype, \
         c.relispartition, (SELECT t.reloptions FROM pg_catalog.pg_class t WHERE t.oid = \
         c.reltoastrelid))"
            .to_owned(),
        "(SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', a.attnum, a.attname, a.atttypid, \
         a.atttypmod, a.attnotnull, a.attcollation, a.attidentity, a.attgenerated, a.attstorage, \
         a.attcompression, a.attstattarget, a.attacl, (SELECT pg_catalog.string_agg(o, ',') FROM \
         pg_catalog.unnest(a.attoptions) AS o WHERE pg_catalog.starts_with(o, 'n_distinct')), (SELECT \
         pg_catalog.pg_get_expr(d.adbin, d.adrelid) FROM pg_catalog.pg_attrdef d \
         WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum)), ';' ORDER BY a.attnum) FROM \
         pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)"
            .to_owned(),
        // Whether a foreign key was validated is told by the swap as it is then.
        "(SELECT pg_catalog.string_agg(CASE k.contype WHEN 'f' THEN pg_catalog.concat_ws(' ', k.conname, \
         pg_catalog.regexp_replace(pg_catalog.pg_get_constraintdef(k.oid), ' NOT VALID$', '')) ELSE \
         pg_catalog.concat_ws(' ', k.conname, k.convalidated, pg_catalog.pg_get_constraintdef(k.oid)) \
         END, ';' ORDER BY k.conname) FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid)"
            .to_owned(),
        "(SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', i.indexrelid, i.indisvalid, \
         i.indisreplident, i.indisclustered, pg_catalog.pg_get_indexdef(i.indexrelid)), ';' ORDER BY \
         i.indexrelid) FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid)"
            .to_owned(),
        format!(
            "(SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', t.tgenabled, \
             pg_catalog.pg_get_triggerdef(t.oid)), ';' ORDER BY t.tgname) FROM pg_catalog.pg_trigger \
             t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND NOT \
             pg_catalog.starts_with(t.tgname, {ours}))"
        ),
        "(SELECT pg_catalog.string_agg(p::text, ';' ORDER BY p.oid) FROM pg_catalog.pg_policy p WHERE \
         p.polrelid = c.oid)"
            .to_owned(),
        "(SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', d.classoid, d.objoid, d.objsubid, \
         d.description), ';' ORDER BY d.objsubid) FROM pg_catalog.pg_description d WHERE d.classoid = \
         'pg_catalog.pg_class'::regclass AND d.objoid = c.oid)"
            .to_owned(),
        "(SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', s.stxstattarget, \
         pg_catalog.pg_get_statisticsobjdef(s.oid)), ';' ORDER BY s.oid) FROM \
         pg_catalog.pg_statistic_ext s WHERE s.stxrelid = c.oid)"
            .to_owned(),
        "(SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', x.oid, x.reltablespace, (SELECT \
         pg_catalog.string_agg(a.attstattarget::text, ',' ORDER BY a.attnum) FROM \
         pg_catalog.pg_attribute a WHERE a.attrelid = x.oid)), ';' ORDER BY x.oid) FROM \
         pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid WHERE i.indrelid = \
         c.oid)"
            .to_owned(),
        "(SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', q, x.relname, x.relacl, \
         pg_catalog.obj_description(x.oid, 'pg_class')), ';' ORDER BY x.oid) FROM pg_catalog.pg_depend \
         d JOIN pg_catalog.pg_sequence q ON q.seqrelid = d.objid JOIN pg_catalog.pg_class x ON x.oid = \
         d.objid WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = \
         'pg_catalog.pg_class'::regclass AND d.refobjid = c.oid AND d.deptype = 'i')"
            .to_owned(),
        comments_sql(&ours),
    ];
    Ok(format!("pg_catalog.md5(pg_catalog.concat_ws('|', {}))", parts.join(", ")))
}

/// Comments on what stands on the table, and labels. Foreign keys take theirs along in the swap, as they
/// are then.
fn comments_sql(ours: &str) -> String {
    let of = |catalogue: &str, oid: &str, table: &str, which: &str| {
        format!(
            "SELECT d.classoid, d.objoid, d.description FROM pg_catalog.pg_description d JOIN \
             {catalogue} k ON k.{oid} = d.objoid WHERE d.classoid = '{}'::regclass AND k.{table} = \
             c.oid {which}",
            if oid == "indexrelid" { "pg_catalog.pg_class" } else { catalogue }
        )
    };
    let parts = [
        of("pg_catalog.pg_constraint", "oid", "conrelid", "AND k.contype <> 'f'"),
        of("pg_catalog.pg_index", "indexrelid", "indrelid", ""),
        of("pg_catalog.pg_policy", "oid", "polrelid", ""),
        of(
            "pg_catalog.pg_trigger",
            "oid",
            "tgrelid",
            &format!("AND NOT pg_catalog.starts_with(k.tgname, {ours})"),
        ),
        "SELECT l.classoid, l.objsubid::oid, l.label FROM pg_catalog.pg_seclabel l WHERE l.classoid = \
         'pg_catalog.pg_class'::regclass AND l.objoid = c.oid"
            .to_owned(),
    ];
    format!(
        "(SELECT pg_catalog.string_agg(m::text, ';' ORDER BY m::text) FROM ({}) AS m)",
        parts.join(" UNION ALL ")
    )
}

/// The capture triggers as the catalogue shows them.
fn triggers_sql(spec: &RunSpec) -> DbResult<String> {
    Ok(format!(
        "(SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', t.tgname, t.tgenabled, t.tgtype, \
         t.tgfoid, pg_catalog.md5(p.prosrc)), ',' ORDER BY t.tgname) FROM pg_catalog.pg_trigger t JOIN \
         pg_catalog.pg_proc p ON p.oid = t.tgfoid WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND \
         pg_catalog.starts_with(t.tgname, {}))",
        literal(&names::private_schema(&spec.run_id))?
    ))
}

/// Looks the source up, for those who need its OID.
///
/// # Errors
/// `SourceChanged` where it is gone.
pub(crate) async fn subject(session: &Session, spec: &RunSpec) -> DbResult<Subject> {
    Subject::read(session, &spec.schema, &spec.table).await.map_err(|error| match error.kind {
        ErrorKind::NotFound => {
            changed(&format!("{}.{}", spec.schema, spec.table), "the table is gone")
        }
        _ => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_change_is_named() {
        let print = Fingerprint {
            oid: "1".into(),
            file: "2".into(),
            definition: "d".into(),
            triggers: "t".into(),
        };
        assert!(print.ensure_same(&print.encode(), "t").is_ok());
        for (other, word) in [
            (Fingerprint { file: "3".into(), ..print.clone() }, "truncated"),
            (Fingerprint { oid: "3".into(), ..print.clone() }, "another table"),
            (Fingerprint { definition: "e".into(), ..print.clone() }, "altered"),
            (Fingerprint { triggers: String::new(), ..print.clone() }, "triggers"),
        ] {
            let error = other.ensure_same(&print.encode(), "t").unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
            assert_eq!(other.has_another_file(&print.encode()), word == "truncated");
        }
    }
}
