//! What cannot be carried although no dependency on the table itself tells of it: what hangs on its
//! sequences, its row type and its constraints' triggers, what belongs to other sessions, and names in
//! the table's schema that the new table would need.

use underpin_core::finding::Finding;
use underpin_dialect::DbResult;

use super::Subject;
use super::refused::{Check, ask};
use crate::connect::Session;
use crate::query::literal;

/// What stands in the way before the statement is looked at.
pub(super) fn checks(source: &Subject) -> Vec<Check> {
    let oid = source.oid;
    vec![
        Check {
            code: "identity-sequence-used",
            sql: format!(
                "SELECT DISTINCT pg_catalog.format('%s uses %s, the sequence of an identity column', \
                 pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid), s.oid::regclass) FROM \
                 pg_catalog.pg_depend i JOIN pg_catalog.pg_class s ON s.oid = i.objid AND s.relkind = \
                 'S' JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::regclass AND \
                 d.refobjid = s.oid WHERE i.classid = 'pg_catalog.pg_class'::regclass AND i.refclassid \
                 = 'pg_catalog.pg_class'::regclass AND i.refobjid = {oid} AND i.deptype = 'i' AND \
                 d.deptype <> 'i'"
            ),
            remedy: "The new table's identity column has a sequence of its own: give the other user a \
                     sequence of its own too (CREATE SEQUENCE), or drop it for the time of the change",
        },
        Check {
            code: "constraint-trigger-switched",
            sql: format!(
                "SELECT DISTINCT pg_catalog.format('constraint %I of %s has triggers that were \
                 disabled, or enabled otherwise than usual', k.conname, k.conrelid::regclass) FROM \
                 pg_catalog.pg_trigger t JOIN pg_catalog.pg_constraint k ON k.oid = t.tgconstraint \
                 WHERE t.tgisinternal AND t.tgenabled <> 'O' AND {oid} IN (k.conrelid, k.confrelid)"
            ),
            remedy: "The new constraint would be checked always: ALTER TABLE … ENABLE TRIGGER ALL, or \
                     drop the constraint",
        },
        Check {
            code: "temporary-dependent",
            sql: format!(
                "SELECT DISTINCT pg_catalog.format('%s of another session points at the table', \
                 pg_catalog.pg_describe_object(d.classid, d.objid, 0)) FROM pg_catalog.pg_depend d \
                 LEFT JOIN pg_catalog.pg_rewrite r ON d.classid = 'pg_catalog.pg_rewrite'::regclass \
                 AND r.oid = d.objid LEFT JOIN pg_catalog.pg_class c ON c.oid = r.ev_class LEFT JOIN \
                 pg_catalog.pg_proc p ON d.classid = 'pg_catalog.pg_proc'::regclass AND p.oid = \
                 d.objid JOIN pg_catalog.pg_namespace n ON n.oid = coalesce(c.relnamespace, \
                 p.pronamespace) WHERE d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid \
                 = {oid} AND pg_catalog.starts_with(n.nspname, 'pg_temp_')"
            ),
            remedy: "Nobody but that session can replace it: wait for its end, or drop it there",
        },
        Check {
            code: "row-type-granted",
            sql: format!(
                "SELECT pg_catalog.format('type %s, the rows'' type, has grants of its own', \
                 t.oid::regtype) FROM pg_catalog.pg_type t WHERE t.typrelid = {oid} AND t.typacl IS \
                 NOT NULL"
            ),
            remedy: "GRANT USAGE ON TYPE … TO PUBLIC makes it like all others",
        },
    ]
}

/// Names that the shadow's parts would bear in the source's schema, and that others bear there.
///
/// # Errors
/// The server's.
pub(crate) async fn taken_names(
    session: &Session,
    source: &Subject,
    twin: &Subject,
) -> DbResult<Vec<Finding>> {
    let check = Check {
        code: "name-taken",
        sql: format!(
            "SELECT pg_catalog.format('%s exists, and the new table would have a part of that name', \
             pg_catalog.pg_describe_object('pg_catalog.pg_class'::regclass, o.oid, 0)) FROM \
             pg_catalog.pg_class o JOIN pg_catalog.pg_class w ON w.relname = o.relname JOIN \
             pg_catalog.pg_namespace n ON n.oid = o.relnamespace WHERE n.nspname = {schema} AND w.oid \
             IN (SELECT indexrelid FROM pg_catalog.pg_index WHERE indrelid = {new} UNION ALL {of_new}) \
             AND o.oid NOT IN (SELECT indexrelid FROM pg_catalog.pg_index WHERE indrelid = {old} UNION \
             ALL {of_old}) UNION ALL SELECT pg_catalog.format('type %s exists, and the new table''s \
             array type would have that name', o.oid::regtype) FROM pg_catalog.pg_type o JOIN \
             pg_catalog.pg_namespace n ON n.oid = o.typnamespace JOIN pg_catalog.pg_type a ON \
             a.typname = o.typname JOIN pg_catalog.pg_type w ON w.typarray = a.oid WHERE n.nspname = \
             {schema} AND w.typrelid = {new} AND NOT EXISTS (SELECT FROM pg_catalog.pg_type s WHERE \
             s.typrelid = {old} AND s.typarray = o.oid)",
            schema = literal(&source.schema)?,
            new = twin.oid,
            old = source.oid,
            of_new = sequences_of(twin.oid),
            of_old = sequences_of(source.oid),
        ),
        remedy: "Rename it, or name yours otherwise in the statement (CONSTRAINT … UNIQUE)",
    };
    ask(session, source, &check).await
}

/// The sequences that move with a table.
fn sequences_of(oid: u32) -> String {
    format!(
        "SELECT objid FROM pg_catalog.pg_depend WHERE classid = 'pg_catalog.pg_class'::regclass AND \
         refclassid = 'pg_catalog.pg_class'::regclass AND refobjid = {oid} AND refobjsubid > 0 AND \
         deptype IN ('a', 'i')"
    )
}
