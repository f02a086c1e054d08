//! How a column of the key may change its type while it goes on telling rows apart.
//!
//! The log keeps keys in the source's types; the shadow's rows are found by them through a plain cast. So
//! the cast must give for each key exactly what the copy gives, and never the same for two keys: a cast
//! that cuts (`'abcdefgh'::varchar(5)`) would find, and take out, the row of another key.

use underpin_core::alter::{Alter, ClauseKind, Syntax, Token, TokenKind, lex};
use underpin_core::mapping::KeyFit;
use underpin_core::schema::Column;

/// Whole numbers from narrow to wide, then what holds them all.
const NUMBERS: [&str; 4] = ["int2", "int4", "int8", "numeric"];

/// How the catalogue reader marks a collation under which two texts may be equal.
pub(crate) const NOT_DETERMINISTIC: &str = " (not deterministic)";

/// How a source column fits its target as a column of the key; `None` where it does not.
pub(crate) fn key_fit(old: &Column, new: &Column) -> Option<KeyFit> {
    let recollated = old.collation != new.collation;
    // Two texts that are one key in the source would be two in the shadow.
    let loose = old.collation.as_ref().is_some_and(|name| name.ends_with(NOT_DETERMINISTIC));
    if recollated && loose {
        return None;
    }
    let kept = if recollated { KeyFit::Recollated } else { KeyFit::Same };
    if old.full_type == new.full_type {
        // Other collations sort otherwise, and may hold other values for equal.
        return Some(kept);
    }
    let place = |column: &Column| NUMBERS.iter().position(|name| *name == column.base_type);
    if let (Some(from), Some(to)) = (place(old), place(new)) {
        // A numeric with a scale could round.
        let whole = to < 3 || new.full_type == "numeric";
        return (from <= to && whole).then_some(KeyFit::Wider);
    }
    let widened = if recollated { KeyFit::Recollated } else { KeyFit::Wider };
    let is_text = |column: &Column| ["varchar", "text"].contains(&column.base_type.as_str());
    let both_padded = old.base_type == "bpchar" && new.base_type == "bpchar";
    if is_text(old) && is_text(new) || both_padded {
        return holds(width(old), width(new)).then_some(widened);
    }
    if old.base_type == "numeric" && new.base_type == "numeric" {
        // A value that would be rounded must not be a key.
        return (new.full_type == "numeric").then_some(KeyFit::Wider);
    }
    // Not dates: what they are as text depends on a session's settings.
    let printable = ["int2", "int4", "int8", "uuid", "bpchar"].contains(&old.base_type.as_str());
    (is_text(new) && printable && holds(width(old), width(new))).then_some(KeyFit::Recollated)
}

/// Whether all texts of at most `old` characters fit into `new`; `None` is no bound.
fn holds(old: Option<u32>, new: Option<u32>) -> bool {
    match (old, new) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(old), Some(new)) => old <= new,
    }
}

/// Characters of the column's longest value as text.
fn width(column: &Column) -> Option<u32> {
    match column.base_type.as_str() {
        "int2" => Some(6),
        "int4" => Some(11),
        "int8" => Some(20),
        "uuid" => Some(36),
        _ => {
            let (_, rest) = column.full_type.split_once('(')?;
            rest.strip_suffix(')')?.parse().ok()
        }
    }
}

/// Columns whose values the user's `USING` makes others than a cast to their new type would. They are no
/// keys: a logged key would not find its row in the shadow.
pub(crate) fn remade(alter: &Alter) -> Vec<String> {
    let names = alter.clauses.iter().filter_map(|clause| match &clause.kind {
        ClauseKind::ModifyColumn { name } if remakes(&clause.text, name) => Some(name.clone()),
        _ => None,
    });
    names.collect()
}

/// Whether `ALTER a TYPE t USING expression` says something else than `a`, `a::t` or `CAST(a AS t)`.
fn remakes(clause: &str, column: &str) -> bool {
    let Ok(tokens) = lex(clause, Syntax::postgres()) else { return true };
    let tokens: Vec<Token<'_>> = tokens.into_iter().filter(|token| !token.is_trivia()).collect();
    let find = |word: &str| {
        let mut depth = 0_i32;
        // Behind the verb and the column's own name.
        tokens.iter().skip(2).position(|token| {
            depth += i32::from(token.is_punct("(")) - i32::from(token.is_punct(")"));
            depth == 0 && token.is_word(word)
        })
    };
    let Some(using) = find("USING").map(|at| at + 2) else { return false };
    let kind_end = find("COLLATE").map(|at| at + 2).filter(|at| *at < using).unwrap_or(using);
    let kind_begin = find("TYPE").map_or(using, |at| at + 3);
    let kind = tokens.get(kind_begin..kind_end).map(spelled).unwrap_or_default();
    let mut said = tokens.get(using + 1..).unwrap_or_default();
    while let [open, inner @ .., close] = said
        && open.is_punct("(")
        && close.is_punct(")")
        && !inner.iter().any(|token| token.is_punct(")"))
    {
        said = inner;
    }
    let is_column = |token: &Token<'_>| match token.kind {
        TokenKind::Word => token.text.to_lowercase() == column,
        TokenKind::QuotedName => token.text == format!("\"{}\"", column.replace('"', "\"\"")),
        _ => false,
    };
    let is_plain = match said {
        [name] => is_column(name),
        [name, a, b, rest @ ..] if a.is_punct(":") && b.is_punct(":") => {
            is_column(name) && spelled(rest) == kind
        }
        [cast, open, name, joint, rest @ .., close]
            if cast.is_word("CAST") && open.is_punct("(") && close.is_punct(")") =>
        {
            is_column(name) && joint.is_word("AS") && spelled(rest) == kind
        }
        _ => false,
    };
    !is_plain
}

/// A type as written, in one spelling where the server has several.
fn spelled(tokens: &[Token<'_>]) -> String {
    let words: Vec<String> = tokens.iter().map(|token| token.text.to_lowercase()).collect();
    match words.join(" ").as_str() {
        "int8" => "bigint".to_owned(),
        "int" | "int4" => "integer".to_owned(),
        "int2" => "smallint".to_owned(),
        "decimal" => "numeric".to_owned(),
        other => other.replace("character varying", "varchar"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(base: &str, full: &str, collation: Option<&str>) -> Column {
        Column {
            name: "a".into(),
            full_type: full.into(),
            base_type: base.into(),
            charset: None,
            collation: collation.map(str::to_owned),
            nullable: false,
            generated: false,
            auto_increment: false,
            volatile_default: false,
            has_default: false,
            srs_id: None,
        }
    }

    #[test]
    fn a_key_may_grow_but_not_shrink() {
        let int = column("int4", "integer", None);
        let big = column("int8", "bigint", None);
        assert_eq!(key_fit(&int, &int), Some(KeyFit::Same));
        assert_eq!(key_fit(&int, &big), Some(KeyFit::Wider));
        assert_eq!(key_fit(&big, &int), None);
        assert_eq!(key_fit(&int, &column("numeric", "numeric(8,2)", None)), None);
        let text = column("text", "text", Some("\"default\""));
        let other = column("text", "text", Some("\"C\""));
        assert_eq!(key_fit(&text, &other), Some(KeyFit::Recollated));
        assert_eq!(key_fit(&int, &text), Some(KeyFit::Recollated));
        assert_eq!(key_fit(&text, &int), None);
        assert_eq!(key_fit(&column("float8", "double precision", None), &text), None);
        assert_eq!(key_fit(&column("date", "date", None), &text), None);
    }

    #[test]
    fn a_text_that_could_be_cut_is_no_key() {
        let limited = |length: u32| {
            let full = format!("character varying({length})");
            column("varchar", &full, Some("\"default\""))
        };
        let text = column("text", "text", Some("\"default\""));
        let padded =
            |length: u32| column("bpchar", &format!("character({length})"), Some("\"default\""));
        assert_eq!(key_fit(&limited(5), &limited(9)), Some(KeyFit::Wider));
        assert_eq!(key_fit(&limited(5), &text), Some(KeyFit::Wider));
        assert_eq!(key_fit(&limited(9), &limited(5)), None);
        assert_eq!(key_fit(&text, &limited(5)), None);
        assert_eq!(key_fit(&padded(5), &padded(9)), Some(KeyFit::Wider));
        assert_eq!(key_fit(&padded(9), &padded(5)), None);
        assert_eq!(key_fit(&padded(9), &limited(5)), None);
        let int = column("int4", "integer", None);
        assert_eq!(key_fit(&int, &limited(5)), None);
        assert_eq!(key_fit(&int, &limited(11)), Some(KeyFit::Recollated));
    }

    #[test]
    fn two_texts_that_were_one_key_must_not_become_two() {
        let loose = format!("public.ci{NOT_DETERMINISTIC}");
        let (loose, strict) =
            (column("text", "text", Some(&loose)), column("text", "text", Some("\"C\"")));
        assert_eq!(key_fit(&loose, &loose), Some(KeyFit::Same));
        assert_eq!(key_fit(&strict, &loose), Some(KeyFit::Recollated));
        assert_eq!(key_fit(&loose, &strict), None);
    }

    #[test]
    fn only_a_plain_cast_leaves_a_key_what_it_was() {
        let alter = |clause: &str| remakes(clause, "id");
        for plain in [
            "ALTER id TYPE bigint",
            "ALTER COLUMN id TYPE bigint USING id",
            "ALTER COLUMN id SET DATA TYPE bigint USING id::bigint",
            "ALTER id TYPE int8 USING (id::BIGINT)",
            "ALTER \"id\" TYPE varchar(20) COLLATE \"C\" USING CAST(\"id\" AS varchar(20))",
        ] {
            assert!(!alter(plain), "{plain}");
        }
        for other in [
            "ALTER id TYPE bigint USING id + 1",
            "ALTER id TYPE bigint USING -id",
            "ALTER id TYPE bigint USING other",
            "ALTER id TYPE bigint USING (id) + (1)",
            "ALTER id TYPE bigint USING id::numeric(8,2)",
            "ALTER id TYPE text USING lpad(id::text, 9)",
            "ALTER id TYPE bigint USING 7",
        ] {
            assert!(alter(other), "{other}");
        }
    }
}
