//! What cannot be carried: each is named, with what to do, before anything is created.
//!
//! Owns the list. Everything that points at the table in `pg_depend` is either known to one of the
//! families or refused here, so that nothing is lost because nobody thought of it.

use underpin_core::finding::Finding;
use underpin_core::mapping::Mapping;
use underpin_dialect::DbResult;

use super::{Subject, mapping_sql, refused_elsewhere};
use crate::connect::Session;
use crate::query::{literal, rows, text};

/// One kind of obstacle: a query that names what is in the way.
pub(super) struct Check {
    pub(super) code: &'static str,
    pub(super) sql: String,
    pub(super) remedy: &'static str,
}

/// What stands in the way before the statement is looked at.
///
/// # Errors
/// The server's.
pub(crate) async fn findings(session: &Session, source: &Subject) -> DbResult<Vec<Finding>> {
    let mut found = Vec::new();
    let checks = table_checks(source.oid)
        .into_iter()
        .chain(belonging_checks(source.oid))
        .chain(elsewhere_checks(source))
        .chain(refused_elsewhere::checks(source))
        .chain(version_checks(source));
    for check in checks {
        found.extend(ask(session, source, &check).await?);
    }
    Ok(found)
}

pub(super) async fn ask(
    session: &Session,
    source: &Subject,
    check: &Check,
) -> DbResult<Vec<Finding>> {
    let attempted = format!("looking for what cannot be carried ({}) of", check.code);
    let found = rows(session, &check.sql, &attempted, &source.object()).await?;
    Ok(found.iter().map(|row| Finding::refusal(check.code, text(row, 0), check.remedy)).collect())
}

/// Names the table where a condition on its row `c` in `pg_class` holds.
fn class_sql(oid: u32, condition: &str, message: &str) -> String {
    format!(
        "SELECT pg_catalog.format({message}, c.oid::regclass) FROM pg_catalog.pg_class c WHERE \
         c.oid = {oid} AND ({condition})"
    )
}

/// What kind of table it is.
fn table_checks(oid: u32) -> Vec<Check> {
    let class = |condition: &str, message: &str| class_sql(oid, condition, message);
    let check = |code, sql, remedy| Check { code, sql, remedy };
    vec![
        check(
            "partitioned-table",
            class("c.relkind = 'p'", "'%s is partitioned'"),
            "Change its partitions' parent in a way that the server does natively, or move the rows to \
             a new partitioned table",
        ),
        check(
            "no-base-table",
            class("c.relkind NOT IN ('r', 'p')", "'%s is not a table'"),
            "underpin changes ordinary tables",
        ),
        check(
            "partition",
            class("c.relispartition", "'%s is a partition'"),
            "All partitions of a table have one shape: detach it (DETACH PARTITION … CONCURRENTLY) \
             first, or change the partitioned table",
        ),
        check(
            "temporary-table",
            class("c.relpersistence = 't'", "'%s is a temporary table'"),
            "Temporary tables belong to one session: alter it there",
        ),
        check(
            "typed-table",
            class("c.reloftype <> 0", "'%s is a table of a composite type'"),
            "ALTER TABLE … NOT OF makes it an ordinary one, in an instant",
        ),
        check(
            "system-table",
            class(
                "c.relnamespace IN (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname IN \
                 ('pg_catalog', 'information_schema', 'pg_toast')) OR c.reloptions::text LIKE \
                 '%%user_catalog_table=true%%'",
                "'%s is a catalogue of the server'",
            )
            .replace("%%", "%"),
            "underpin does not touch the server's catalogues",
        ),
        check(
            "access-method",
            class(
                "c.relkind = 'r' AND (SELECT am.amhandler::text FROM pg_catalog.pg_am am WHERE am.oid \
                 = c.relam) <> 'heap_tableam_handler'",
                "'%s is stored by an access method other than heap'",
            ),
            "The copy goes by physical blocks of heap tables: use the access method's own means",
        ),
    ]
}

/// What a table is part of, and the state that it is in.
fn belonging_checks(oid: u32) -> Vec<Check> {
    let class = |condition: &str, message: &str| class_sql(oid, condition, message);
    let check = |code, sql, remedy| Check { code, sql, remedy };
    vec![
        check(
            "inheritance",
            format!(
                "SELECT pg_catalog.format('%s inherits from %s', inhrelid::regclass, \
                 inhparent::regclass) FROM pg_catalog.pg_inherits i WHERE {oid} IN (inhrelid, \
                 inhparent) AND NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = \
                 i.inhparent AND c.relkind = 'p')"
            ),
            "Rows of children count as rows of their parent: ALTER TABLE … NO INHERIT first",
        ),
        check(
            "extension-member",
            format!(
                "SELECT pg_catalog.format('the table belongs to extension %s', e.extname) FROM \
                 pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid WHERE \
                 d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = {oid} AND d.objsubid = 0 \
                 AND d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.deptype = 'e'"
            ),
            "Only the extension's own scripts may change it",
        ),
        check(
            "forced-row-security",
            class(
                "c.relforcerowsecurity AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid \
                 = c.relowner AND (r.rolsuper OR r.rolbypassrls))",
                "'row security of %s is forced on its owner too, as whom the rows are copied'",
            ),
            "ALTER TABLE … NO FORCE ROW LEVEL SECURITY for the time of the change, or ALTER ROLE of \
             the owner BYPASSRLS",
        ),
        check(
            "wraparound",
            class(
                "c.relkind = 'r' AND pg_catalog.age(c.relfrozenxid) > 1500000000",
                "'%s is near transaction id wraparound'",
            ),
            "VACUUM (FREEZE) it first",
        ),
        check(
            "foreign-trigger",
            format!(
                "SELECT pg_catalog.format('trigger %I of extension %s stands on the table', t.tgname, \
                 e.extname) FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_depend d ON d.classid = \
                 'pg_catalog.pg_proc'::regclass AND d.objid = t.tgfoid AND d.deptype = 'e' JOIN \
                 pg_catalog.pg_extension e ON e.oid = d.refobjid WHERE t.tgrelid = {oid} AND \
                 e.extname IN ('timescaledb', 'citus', 'pglogical', 'pg_ivm', 'pg_squeeze', \
                 'pg_repack')"
            ),
            "The extension knows the table by its OID and would lose it: use the extension's own \
             means, or take the table out of its care first",
        ),
    ]
}

fn elsewhere_checks(source: &Subject) -> Vec<Check> {
    let oid = source.oid;
    let check = |code, sql, remedy| Check { code, sql, remedy };
    vec![
        check(
            "publication-for-all-tables",
            "SELECT pg_catalog.format('publication %I publishes all tables, the shadow and the change \
             log among them', pubname) FROM pg_catalog.pg_publication WHERE puballtables"
                .to_owned(),
            "Publish the tables by name or by schema for the time of the change",
        ),
        check(
            "subscription-target",
            format!(
                "SELECT pg_catalog.format('the table is filled by subscription %s', s.subname) FROM \
                 pg_catalog.pg_subscription_rel r JOIN pg_catalog.pg_subscription s ON s.oid = \
                 r.srsubid WHERE r.srrelid = {oid}"
            ),
            "After the swap its incoming rows would vanish: take it out of the subscription first",
        ),
        check(
            "materialized-view",
            dependents_sql(
                "pg_catalog.pg_rewrite",
                oid,
                "d.objid IN (SELECT r.oid FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class v ON \
                 v.oid = r.ev_class WHERE v.relkind = 'm')",
            ),
            "A materialized view cannot be pointed at the new table: drop it for the time of the \
             change and make it again",
        ),
        check(
            "row-type-used",
            format!(
                "SELECT pg_catalog.format('%s uses the table''s row type', \
                 pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid)) FROM \
                 pg_catalog.pg_depend d JOIN pg_catalog.pg_class c ON c.oid = {oid} JOIN \
                 pg_catalog.pg_type t ON t.oid = c.reltype WHERE d.refclassid = \
                 'pg_catalog.pg_type'::regclass AND d.refobjid IN (t.oid, t.typarray) AND NOT \
                 (d.classid = 'pg_catalog.pg_type'::regclass AND d.objid = t.typarray)"
            ),
            "It would go on using the old table's type: drop it for the time of the change and make \
             it again",
        ),
        check(
            "points-at-the-table",
            unknown_dependents_sql(oid),
            "underpin does not know how to point it at the new table: drop it for the time of the \
             change and make it again",
        ),
        check(
            "swap-schema",
            format!(
                "SELECT pg_catalog.format('a table of the name %I is in the way', relname) FROM \
                 pg_catalog.pg_class WHERE oid = {oid} AND pg_catalog.starts_with(relname, \
                 'underpin_')"
            ),
            "underpin's own tables bear such names: rename yours",
        ),
    ]
}

/// What some versions of the server cannot do.
fn version_checks(source: &Subject) -> Vec<Check> {
    let oid = source.oid;
    let check = |code, sql, remedy| Check { code, sql, remedy };
    let mut checks = Vec::new();
    if source.version >= 180_000 {
        checks.push(check(
            "foreign-key-period",
            format!(
                "SELECT pg_catalog.format('foreign key %I of %s has a PERIOD', conname, \
                 conrelid::regclass) FROM pg_catalog.pg_constraint WHERE contype = 'f' AND conperiod \
                 AND {oid} IN (conrelid, confrelid)"
            ),
            "underpin does not carry it yet: drop it for the time of the change",
        ));
    }
    if source.version < 180_000 {
        checks.push(check(
            "foreign-key-of-partitioned-table",
            format!(
                "SELECT pg_catalog.format('foreign key %I of the partitioned table %s points at the \
                 table', k.conname, k.conrelid::regclass) FROM pg_catalog.pg_constraint k JOIN \
                 pg_catalog.pg_class c ON c.oid = k.conrelid WHERE k.contype = 'f' AND k.confrelid = \
                 {oid} AND c.relkind = 'p' AND k.conparentid = 0"
            ),
            "Before PostgreSQL 18 it cannot be made again without a scan under a lock: drop it for the \
             time of the change",
        ));
    }
    checks
}

/// Objects of a catalogue that depend on the table, described.
fn dependents_sql(catalogue: &str, oid: u32, condition: &str) -> String {
    format!(
        "SELECT DISTINCT pg_catalog.format('%s points at the table', \
         pg_catalog.pg_describe_object(d.classid, d.objid, 0)) FROM pg_catalog.pg_depend d WHERE \
         d.classid = '{catalogue}'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass AND \
         d.refobjid = {oid} AND ({condition})"
    )
}

/// Everything in `pg_depend` that no family carries.
fn unknown_dependents_sql(oid: u32) -> String {
    let of = |catalogue: &str, condition: &str| {
        format!(
            "(d.classid = '{catalogue}'::regclass AND d.objid IN (SELECT oid FROM {catalogue} WHERE {condition}))"
        )
    };
    let known = [
        of(
            "pg_catalog.pg_class",
            &format!(
                "relkind IN ('S', 't') OR oid = {oid} OR oid IN (SELECT indexrelid FROM pg_catalog.pg_index WHERE \
                 indrelid = {oid})"
            ),
        ),
        of("pg_catalog.pg_type", &format!("typrelid = {oid}")),
        of("pg_catalog.pg_attrdef", &format!("adrelid = {oid}")),
        of(
            "pg_catalog.pg_constraint",
            &format!("conrelid = {oid} OR contype = 'f' AND confrelid = {oid}"),
        ),
        of(
            "pg_catalog.pg_trigger",
            &format!("tgrelid = {oid} OR tgconstrrelid = {oid} OR tgisinternal"),
        ),
        of("pg_catalog.pg_policy", "true"),
        of("pg_catalog.pg_rewrite", "true"),
        of("pg_catalog.pg_statistic_ext", &format!("stxrelid = {oid}")),
        of("pg_catalog.pg_proc", "prokind <> 'a'"),
        of("pg_catalog.pg_publication_rel", "true"),
    ];
    format!(
        "SELECT DISTINCT pg_catalog.format('%s points at the table', \
         pg_catalog.pg_describe_object(d.classid, d.objid, 0)) FROM pg_catalog.pg_depend d WHERE \
         d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = {oid} AND NOT ({})",
        known.join(" OR ")
    )
}

/// What names a column that the change drops, renames or gives another type, in a text that is
/// replayed as it stands: views, rules, functions, policies elsewhere, publications. The server would
/// refuse most of these itself.
///
/// # Errors
/// The server's.
pub(crate) async fn by_column(
    session: &Session,
    source: &Subject,
    mapping: &Mapping,
    retyped: &[String],
) -> DbResult<Vec<Finding>> {
    let retyped: Vec<String> = retyped.iter().map(|name| literal(name)).collect::<DbResult<_>>()?;
    let retyped = if retyped.is_empty() {
        String::new()
    } else {
        format!(" OR a.attname IN ({})", retyped.join(", "))
    };
    let touched = format!(
        "pg_catalog.pg_attribute a LEFT JOIN {} ON m.source = a.attname WHERE a.attrelid = {oid} AND \
         a.attnum > 0 AND NOT a.attisdropped AND (m.target IS DISTINCT FROM \
         a.attname{retyped})",
        mapping_sql(source, mapping)?,
        oid = source.oid
    );
    let named = format!(
        "SELECT DISTINCT pg_catalog.format('%s names column %I, which the change drops, renames or \
         gives another type', pg_catalog.pg_describe_object(d.classid, d.objid, 0), x.attname) FROM \
         pg_catalog.pg_depend d JOIN (SELECT a.attnum, a.attname FROM {touched}) AS x ON x.attnum = \
         d.refobjsubid WHERE d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = {oid} \
         AND (d.classid IN ('pg_catalog.pg_rewrite'::regclass, 'pg_catalog.pg_proc'::regclass, \
         'pg_catalog.pg_publication_rel'::regclass) OR d.classid = 'pg_catalog.pg_policy'::regclass \
         AND d.objid IN (SELECT oid FROM pg_catalog.pg_policy WHERE polrelid <> {oid}))",
        oid = source.oid
    );
    let check = Check {
        code: "column-in-use",
        sql: named,
        remedy: "Drop it for the time of the change and make it again; a rename alone is done in an \
                 instant by the server, in a statement of its own",
    };
    let mut found = ask(session, source, &check).await?;
    let referenced = format!(
        "SELECT pg_catalog.format('foreign key %I of %s refers to column %I, which the change drops', \
         k.conname, k.conrelid::regclass, a.attname) FROM pg_catalog.pg_constraint k CROSS JOIN \
         LATERAL pg_catalog.unnest(k.confkey) AS u(num) JOIN pg_catalog.pg_attribute a ON a.attrelid \
         = k.confrelid AND a.attnum = u.num LEFT JOIN {} ON m.source = a.attname WHERE k.contype = \
         'f' AND k.conparentid = 0 AND k.confrelid = {oid} AND m.target IS NULL",
        mapping_sql(source, mapping)?,
        oid = source.oid
    );
    let check = Check {
        code: "foreign-key-loses-column",
        sql: referenced,
        remedy: "Drop the foreign key first",
    };
    found.extend(ask(session, source, &check).await?);
    Ok(found)
}

/// What stands on the twin and points at the source: it names the table itself (a default of
/// `'t'::regclass`, a policy that looks into its own table), and would go on meaning the old one.
///
/// # Errors
/// The server's.
pub(crate) async fn twin_looks_back(
    session: &Session,
    source: &Subject,
    twin: &Subject,
) -> DbResult<Vec<Finding>> {
    let of = |catalogue: &str, column: &str| {
        format!(
            "d.classid = '{catalogue}'::regclass AND d.objid IN (SELECT oid FROM {catalogue} WHERE \
             {column} = {})",
            twin.oid
        )
    };
    let parts = [
        of("pg_catalog.pg_attrdef", "adrelid"),
        of("pg_catalog.pg_constraint", "conrelid"),
        of("pg_catalog.pg_policy", "polrelid"),
        of("pg_catalog.pg_trigger", "tgrelid"),
        format!(
            "d.classid = 'pg_catalog.pg_class'::regclass AND d.objid IN (SELECT indexrelid FROM \
             pg_catalog.pg_index WHERE indrelid = {})",
            twin.oid
        ),
    ];
    let check = Check {
        code: "names-itself",
        sql: format!(
            "SELECT DISTINCT pg_catalog.format('%s names the table itself', \
             pg_catalog.pg_describe_object(d.classid, d.objid, 0)) FROM pg_catalog.pg_depend d WHERE \
             d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = {} AND ({})",
            source.oid,
            parts.join(" OR ")
        ),
        remedy: "It would go on meaning the old table: drop it for the time of the change and make \
                 it again",
    };
    ask(session, source, &check).await
}
