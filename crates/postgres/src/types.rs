//! What the server's types mean for the copy: how a column's type is written in a statement, how its
//! values are compared, and the conversions that the user wrote with `USING`.
//!
//! Values never pass through the program, except as the bounds of key ranges and in messages, and
//! those as the server spelled them.

use underpin_core::alter::{Alter, ClauseKind, Syntax, lex};
use underpin_core::plan::RunSpec;
use underpin_dialect::{DbError, DbResult, ErrorKind};

use crate::connect::{Session, our_meanings, users_meanings};
use crate::names;
use crate::query::{first, flag, literal, optional_text, quote_table, rows, run, text};

/// Name of a view that never commits, and of its one column.
const VIEW: &str = "underpin_expression";

/// A column's type, ready for statements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ColumnType {
    /// The type as the server prints it, qualified unless it is the server's own.
    pub(crate) full: String,
    /// The same below all domains.
    pub(crate) base: String,
    /// The bare name of the base type where it is one of the server's own.
    pub(crate) builtin: Option<String>,
    /// Whether the type has a modifier (a length, a scale).
    pub(crate) limited: bool,
    /// Collation, quoted and qualified, for types that have one.
    pub(crate) collation: Option<String>,
}

impl ColumnType {
    /// ` COLLATE "x"."y"`, or nothing.
    pub(crate) fn collate(&self) -> String {
        self.collation.as_ref().map_or_else(String::new, |name| format!(" COLLATE {name}"))
    }

    /// A value of another type in this one, as an assignment makes it: a text that is too long is refused,
    /// where an explicit cast cuts it.
    pub(crate) fn assigned(&self, value: &str) -> String {
        let length = || -> Option<u32> {
            let (_, rest) = self.base.split_once('(')?;
            rest.split_once(')')?.0.parse().ok()
        };
        let (Some(name), true, Some(length)) = (self.builtin.as_deref(), self.limited, length())
        else {
            return format!("({value})::{}", self.full);
        };
        // The modifier of a text counts its head too.
        let modifier = match name {
            "varchar" | "bpchar" => length.saturating_add(4),
            "bit" | "varbit" => length,
            _ => return format!("({value})::{}", self.full),
        };
        format!(
            "pg_catalog.\"{name}\"(({value})::pg_catalog.\"{name}\", {modifier}, false)::{}",
            self.full
        )
    }

    /// Whether it is one of the server's own of these names.
    pub(crate) fn is_one_of(&self, names: &[&str]) -> bool {
        self.builtin.as_deref().is_some_and(|name| names.contains(&name))
    }

    /// The form of a value of this type in which it is compared: equal exactly where the values are the
    /// same to a byte. Types of which two spellings are equal, or that cannot be compared, go by their
    /// text.
    pub(crate) fn exact(&self, value: &str) -> String {
        match self.builtin.as_deref() {
            Some(
                "bool" | "int2" | "int4" | "int8" | "oid" | "uuid" | "date" | "timestamp"
                | "timestamptz" | "time" | "bytea" | "char",
            ) => value.to_owned(),
            // With a scale every value is kept with the same number of digits.
            Some("numeric") if self.limited => value.to_owned(),
            // With a length every value is padded to it.
            Some("bpchar") if self.limited => format!("{value} COLLATE pg_catalog.\"C\""),
            // How many digits a text has is the user's to say.
            Some("float4") => format!("pg_catalog.float4send({value})"),
            Some("float8") => format!("pg_catalog.float8send({value})"),
            Some("text" | "varchar" | "name") => format!("{value} COLLATE pg_catalog.\"C\""),
            // The cast to text would take the padding off, character by character.
            Some("bpchar") => {
                format!("pg_catalog.textin(pg_catalog.bpcharout({value})) COLLATE pg_catalog.\"C\"")
            }
            _ => format!("{value}::text COLLATE pg_catalog.\"C\""),
        }
    }
}

/// All live columns of a table with their types, in its order.
///
/// # Errors
/// The server's; `NotFound` where the table is missing.
pub(crate) async fn columns(
    session: &Session,
    schema: &str,
    table: &str,
) -> DbResult<Vec<(String, ColumnType)>> {
    let sql = format!(
        "SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), \
         pg_catalog.format_type(b.oid, b.typmod), \
         CASE WHEN b.nsp = 'pg_catalog'::pg_catalog.regnamespace THEN b.typname END, b.typmod >= 0, \
         CASE WHEN a.attcollation <> 0 THEN pg_catalog.quote_ident(cn.nspname) || '.' || \
         pg_catalog.quote_ident(c.collname) END \
         FROM pg_catalog.pg_attribute a \
         CROSS JOIN LATERAL (WITH RECURSIVE down AS (\
         SELECT t.oid, t.typname, t.typnamespace AS nsp, t.typtype, t.typbasetype, t.typtypmod, \
         a.atttypmod AS typmod FROM pg_catalog.pg_type t WHERE t.oid = a.atttypid \
         UNION ALL SELECT t.oid, t.typname, t.typnamespace, t.typtype, t.typbasetype, t.typtypmod, \
         down.typtypmod FROM down JOIN pg_catalog.pg_type t ON t.oid = down.typbasetype \
         WHERE down.typtype = 'd') SELECT * FROM down WHERE typtype <> 'd') AS b \
         LEFT JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation \
         LEFT JOIN pg_catalog.pg_namespace cn ON cn.oid = c.collnamespace \
         WHERE a.attrelid = {}::pg_catalog.regclass AND a.attnum > 0 AND NOT a.attisdropped \
         ORDER BY a.attnum",
        literal(&quote_table(schema, table)?)?
    );
    let object = format!("{schema}.{table}");
    let found = rows(session, &sql, "reading the columns of", &object).await?;
    Ok(found
        .iter()
        .map(|row| {
            let kind = ColumnType {
                full: text(row, 1),
                base: text(row, 2),
                builtin: optional_text(row, 3),
                limited: flag(row, 4),
                collation: optional_text(row, 5),
            };
            (text(row, 0), kind)
        })
        .collect())
}

/// The conversions that the user wrote: column and expression over the columns of `old`, the table in the
/// old shape, with every name in it qualified as the user's search path finds it.
///
/// # Errors
/// The server's, where it cannot read an expression.
pub(crate) async fn conversions(
    session: &Session,
    spec: &RunSpec,
    old: &str,
) -> DbResult<Vec<(String, String)>> {
    let object = format!("{}.{}", spec.schema, spec.table);
    let alter = Alter::parse(&spec.statement, Syntax::postgres()).map_err(|error| {
        DbError::new(ErrorKind::Refused, "reading the statement", object.clone())
            .said(error.to_string())
    })?;
    let mut found = Vec::new();
    for clause in &alter.clauses {
        if let ClauseKind::ModifyColumn { name } = &clause.kind
            && let Some(expression) = using_expression(&clause.text)
        {
            found.push((name.clone(), qualified(session, spec, old, &expression).await?));
        }
    }
    Ok(found)
}

/// What follows `USING` in `ALTER a TYPE t USING expression`.
fn using_expression(clause: &str) -> Option<String> {
    let tokens = lex(clause, Syntax::postgres()).ok()?;
    let mut depth = 0_i32;
    for token in &tokens {
        match token.text {
            "(" | "[" => depth += 1,
            ")" | "]" => depth -= 1,
            _ if depth == 0 && token.is_word("USING") => {
                return clause.get(token.end()..).map(|text| text.trim().to_owned());
            }
            _ => {}
        }
    }
    None
}

/// The expression as the server prints it with nothing on the search path: by way of a view that is
/// rolled back. It reads from two tables, so that every column is printed with its table's name.
async fn qualified(
    session: &Session,
    spec: &RunSpec,
    old: &str,
    expression: &str,
) -> DbResult<String> {
    let attempted = "reading a USING expression for";
    let object = format!("{}.{}", spec.schema, spec.table);
    let view = quote_table(&names::private_schema(&spec.run_id), VIEW)?;
    let sql = format!(
        "BEGIN; SET LOCAL search_path TO DEFAULT; {}; \
         CREATE VIEW {view} AS SELECT ({expression}\n) AS {VIEW} FROM {old}, \
         (VALUES (1)) AS underpin_one (underpin_one); \
         SET LOCAL search_path = pg_catalog; {}; \
         SELECT pg_catalog.pg_get_viewdef({}::pg_catalog.regclass); ROLLBACK",
        users_meanings(),
        our_meanings(),
        literal(&view)?
    );
    let row = match first(session, &sql, attempted, &object).await {
        Ok(row) => row,
        Err(error) => {
            run(session, "ROLLBACK", attempted, &object).await?;
            return Err(error);
        }
    };
    let printed = row.map(|row| text(&row, 0)).unwrap_or_default();
    let inner = printed.trim_start().strip_prefix("SELECT ").and_then(|rest| {
        let end = rest.rfind(&format!(" AS {VIEW}"))?;
        rest.get(..end)
    });
    inner.map(str::to_owned).ok_or_else(|| {
        DbError::new(ErrorKind::Other, attempted, object).said(format!("{printed:?}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_expression_is_what_follows_using_outside_of_brackets() {
        let cut = |clause: &str| using_expression(clause);
        assert_eq!(cut("ALTER a TYPE int USING a::int"), Some("a::int".to_owned()));
        assert_eq!(
            cut("ALTER a TYPE int using (f(a, 'USING'))"),
            Some("(f(a, 'USING'))".to_owned())
        );
        assert_eq!(cut("ALTER a TYPE int"), None);
        assert_eq!(cut("ALTER \"USING\" TYPE int"), None);
    }

    #[test]
    fn only_types_whose_equality_is_that_of_their_bytes_are_compared_as_they_are() {
        let kind = |name: &str, limited: bool| ColumnType {
            full: name.into(),
            base: name.into(),
            builtin: Some(name.into()),
            limited,
            collation: None,
        };
        assert_eq!(kind("int4", false).exact("x"), "x");
        assert_eq!(kind("numeric", true).exact("x"), "x");
        assert!(kind("bpchar", true).exact("x").starts_with("x COLLATE"));
        assert!(kind("bpchar", false).exact("x").contains("bpcharout"));
        // 1.0 and 1.00 are equal, and so are 0 and -0.
        assert!(kind("numeric", false).exact("x").contains("::text"));
        assert_eq!(kind("float8", false).exact("x"), "pg_catalog.float8send(x)");
    }
}
