//! The user's triggers: made on the twin, switched off for the copy, switched on by the swap.

use underpin_dialect::{DbError, DbResult, ErrorKind};

use super::{Subject, statements};
use crate::connect::Session;
use crate::query::{literal, rows, text};

/// Statements for the twin. Triggers whose name begins with `ours` are our own.
///
/// # Errors
/// The server's.
pub(crate) async fn on_twin(
    session: &Session,
    source: &Subject,
    twin: &Subject,
    ours: &str,
) -> DbResult<Vec<String>> {
    let sql = format!(
        "SELECT pg_catalog.pg_get_triggerdef(t.oid), {from}, {to}, CASE t.tgenabled WHEN 'O' THEN '' \
         ELSE pg_catalog.format('; ALTER TABLE %s %s TRIGGER %I', {twin}, CASE t.tgenabled WHEN 'A' \
         THEN 'ENABLE ALWAYS' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'DISABLE' END, t.tgname) END || \
         coalesce((SELECT pg_catalog.string_agg(pg_catalog.format('; ALTER TRIGGER %I ON %s DEPENDS \
         ON EXTENSION %I', t.tgname, {twin}, e.extname), '') FROM pg_catalog.pg_depend x JOIN \
         pg_catalog.pg_extension e ON e.oid = x.refobjid WHERE x.classid = \
         'pg_catalog.pg_trigger'::regclass AND x.objid = t.oid AND x.refclassid = \
         'pg_catalog.pg_extension'::regclass AND x.deptype = 'x'), '') FROM pg_catalog.pg_trigger t \
         WHERE {which} ORDER BY t.tgname",
        twin = literal(&twin.quoted()?)?,
        from = on_table(source)?,
        to = on_table(twin)?,
        which = which(source, ours)?,
    );
    let attempted = "reading the triggers of";
    let found = rows(session, &sql, attempted, &source.object()).await?;
    found
        .iter()
        .map(|row| {
            let definition = text(row, 0);
            let moved = retargeted(&definition, &text(row, 1), &text(row, 2)).ok_or_else(|| {
                DbError::new(ErrorKind::Refused, attempted, source.object()).said(definition)
            })?;
            Ok(format!("{moved}{}", text(row, 3)))
        })
        .collect()
}

/// The definition with the first `from` that stands outside of a quoted name replaced: names of the
/// trigger and of its columns come before the table's, and may hold the same words.
fn retargeted(definition: &str, from: &str, to: &str) -> Option<String> {
    let mut quoted = false;
    for (at, letter) in definition.char_indices() {
        if letter == '"' {
            quoted = !quoted;
        }
        let (head, rest) = definition.split_at(at);
        if !quoted && let Some(tail) = rest.strip_prefix(from) {
            return Some(format!("{head}{to}{tail}"));
        }
    }
    None
}

/// No trigger fires for the copy; the swap switches them on as they were.
///
/// # Errors
/// The server's.
pub(crate) async fn set_aside(
    session: &Session,
    shadow: &Subject,
    place: &str,
    ours: &str,
) -> DbResult<(Vec<String>, Vec<String>)> {
    let which = format!(
        "FROM pg_catalog.pg_trigger t WHERE t.tgrelid = {} AND NOT t.tgisinternal AND t.tgenabled <> \
         'D' AND NOT pg_catalog.starts_with(t.tgname, {}) ORDER BY t.tgname",
        shadow.oid,
        literal(ours)?
    );
    let now = format!(
        "SELECT pg_catalog.format('ALTER TABLE %s DISABLE TRIGGER %I', {}, t.tgname) {which}",
        literal(&shadow.quoted()?)?
    );
    let later = format!(
        "SELECT pg_catalog.format('ALTER TABLE %s ENABLE %sTRIGGER %I', {}, CASE t.tgenabled WHEN \
         'A' THEN 'ALWAYS ' WHEN 'R' THEN 'REPLICA ' ELSE '' END, t.tgname) {which}",
        literal(place)?
    );
    Ok((
        statements(session, &now, "the triggers", shadow).await?,
        statements(session, &later, "the triggers", shadow).await?,
    ))
}

/// Constraint triggers of other tables that name this one after FROM: made again.
///
/// # Errors
/// The server's.
pub(crate) async fn elsewhere_in_swap(
    session: &Session,
    source: &Subject,
) -> DbResult<(Vec<String>, Vec<String>)> {
    let which = format!(
        "FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid JOIN \
         pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE t.tgconstrrelid = {oid} AND \
         t.tgrelid <> {oid} AND NOT t.tgisinternal ORDER BY t.tgname",
        oid = source.oid
    );
    let drops = format!(
        "SELECT pg_catalog.format('DROP TRIGGER %I ON %I.%I', t.tgname, n.nspname, c.relname) {which}"
    );
    let adds = format!(
        "SELECT pg_catalog.pg_get_triggerdef(t.oid) || CASE t.tgenabled WHEN 'O' THEN '' ELSE \
         pg_catalog.format('; ALTER TABLE %I.%I %s TRIGGER %I', n.nspname, c.relname, CASE \
         t.tgenabled WHEN 'A' THEN 'ENABLE ALWAYS' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'DISABLE' END, \
         t.tgname) END || coalesce(pg_catalog.format('; COMMENT ON TRIGGER %I ON %I.%I IS ', \
         t.tgname, n.nspname, c.relname) || pg_catalog.quote_literal(\
         pg_catalog.obj_description(t.oid, 'pg_trigger')), '') {which}"
    );
    let what = "the triggers elsewhere";
    Ok((
        statements(session, &drops, what, source).await?,
        statements(session, &adds, what, source).await?,
    ))
}

fn on_table(table: &Subject) -> DbResult<String> {
    Ok(format!(
        "pg_catalog.format(' ON %I.%I ', {}, {})",
        literal(&table.schema)?,
        literal(&table.name)?
    ))
}

/// The user's own triggers on the table.
fn which(source: &Subject, ours: &str) -> DbResult<String> {
    Ok(format!(
        "t.tgrelid = {} AND NOT t.tgisinternal AND t.tgparentid = 0 AND NOT \
         pg_catalog.starts_with(t.tgname, {})",
        source.oid,
        literal(ours)?
    ))
}

#[cfg(test)]
mod tests {
    use super::retargeted;

    #[test]
    fn only_the_table_is_replaced_not_a_name_that_sounds_like_it() {
        let definition = "CREATE TRIGGER \"a ON public.t b\" AFTER UPDATE OF \" ON public.t \" ON public.t \
                          FOR EACH ROW WHEN ((new.v <> ' ON public.t '::text)) EXECUTE FUNCTION f()";
        let moved = retargeted(definition, " ON public.t ", " ON p.t ");
        let wanted = definition.replace("ON public.t FOR", "ON p.t FOR");
        assert_eq!(moved, Some(wanted));
        assert_eq!(retargeted("CREATE TRIGGER \" ON a.b \"", " ON a.b ", ""), None);
        let quoted = "CREATE TRIGGER x AFTER INSERT ON \"S \"\"q\".\"T\" EXECUTE FUNCTION f()";
        let moved = retargeted(quoted, " ON \"S \"\"q\".\"T\" ", " ON p.\"T\" ");
        assert_eq!(
            moved.as_deref(),
            Some("CREATE TRIGGER x AFTER INSERT ON p.\"T\" EXECUTE FUNCTION f()")
        );
    }
}
