//! The shape of a run in SQL: quoted names, column lists and key predicates, made once per connection
//! from the run's facts and the catalogues of source and shadow.
//!
//! Owns the fragments; the rooms (`copy`, `changelog`, `verify`, `swap`) put them into statements.

use underpin_core::key::{Frontier, Key, KeyRange};
use underpin_core::mapping::KeyFit;
use underpin_core::plan::RunSpec;
use underpin_core::schema::{Column, Table};
use underpin_core::way::Way;
use underpin_dialect::{DbError, DbResult, ErrorKind};

use crate::forms;
use crate::query::{quote, quote_table};
use crate::types::{self, KeyKind};

/// One column of the key, quoted.
#[derive(Debug, Clone)]
pub(crate) struct KeyPart {
    /// Name in the source.
    pub(crate) source: String,
    /// Name in the shadow.
    pub(crate) target: String,
    /// Name in the change log.
    pub(crate) log: String,
    /// How its values travel.
    pub(crate) kind: KeyKind,
    /// Definition of the source's column type, for the log.
    pub(crate) source_type: String,
    /// Definition of the shadow's column type, for the stage.
    pub(crate) target_type: String,
    /// Where the collation changes: character set and collation of the shadow's column.
    pub(crate) recollated: Option<(String, String)>,
    /// Whether two values may be equal for the server and yet differ in bytes.
    pub(crate) is_text: bool,
}

impl KeyPart {
    /// `a = b`, for two columns of this part's type.
    fn same(&self, a: &str, b: &str) -> String {
        if self.is_enum() {
            // The empty text may mean both the error value and a member.
            format!("{a} = {b} AND {a}+0 = {b}+0")
        } else {
            format!("{a} = {b}")
        }
    }

    /// Whether its values are positions in a list of members.
    pub(crate) fn is_enum(&self) -> bool {
        matches!(self.kind, KeyKind::Enum { .. })
    }
}

/// One copied column, quoted, with the forms in which old and new value are compared.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    /// Name in the source.
    pub(crate) source: String,
    /// Name in the shadow.
    pub(crate) target: String,
    /// Definition of the shadow's column type, nullable.
    pub(crate) stage_type: String,
    /// Expression over the source's column, qualified with `s`.
    pub(crate) source_form: String,
    /// Expression over the shadow's column, qualified with `n`.
    pub(crate) target_form: String,
    /// Definition of the source's column type, nullable.
    pub(crate) source_type: String,
    /// Whether the value is read as text.
    read_as_text: bool,
    /// Whether it may be NULL, before or after the change.
    pub(crate) nullable: bool,
    /// Where the server may cut the value without a word: whether it did, over the stage's `o` (as it
    /// was) and `c` (as it became).
    pub(crate) staged_loss: Option<String>,
    /// On the way back, where the type differs: how the shadow's own value is kept.
    pub(crate) kept_if: Option<KeptIf>,
    /// Whether the shadow computes the value by itself: it is compared, not written.
    pub(crate) is_computed: bool,
}

/// The old row's value stays where it means what the new row says: what the change made of `007` is a 7,
/// and a row of which another column was written since must not come back with that.
#[derive(Debug, Clone)]
pub(crate) struct KeptIf {
    /// Whether the change reads the old value as text.
    forward_as_text: bool,
    /// Whether the stage's `f` (what the change makes of the old row's value) and `o` (what the new row
    /// holds) are the same to the byte.
    pub(crate) same: String,
}

impl Pair {
    /// The expression that reads the value which is written into the new column.
    pub(crate) fn value(&self, prefix: &str) -> String {
        let name = format!("{prefix}{}", self.source);
        self.read(name)
    }

    /// The expression that writes what is in the column `name` into the new column.
    pub(crate) fn read(&self, name: String) -> String {
        if self.read_as_text { format!("CONCAT({name})") } else { name }
    }

    /// The expression that makes of the shadow's value under the alias `n` what the change makes of it.
    pub(crate) fn forward(&self, kept_if: &KeptIf) -> String {
        let name = format!("n.{}", self.target);
        if kept_if.forward_as_text { format!("CONCAT({name})") } else { name }
    }

    /// Whether the stage's `c` is filled at once, and not by way of `o`.
    pub(crate) fn is_filled_at_once(&self) -> bool {
        !self.is_computed && self.kept_if.is_none()
    }
}

/// See the module's head. All names are quoted.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    /// Which way it is for.
    pub(crate) way: Way,
    /// The table's name for messages.
    pub(crate) table: String,
    pub(crate) source: String,
    pub(crate) shadow: String,
    pub(crate) log: String,
    pub(crate) retired: String,
    /// A temporary table of each worker's session.
    pub(crate) stage: String,
    pub(crate) source_index: String,
    pub(crate) target_index: String,
    pub(crate) key: Vec<KeyPart>,
    pub(crate) pairs: Vec<Pair>,
    /// Columns of the shadow alone whose first draw must be kept: name and type.
    pub(crate) kept: Vec<(String, String)>,
    /// Columns of the shadow alone that must have a value and have no default: name and value.
    pub(crate) implied: Vec<(String, &'static str)>,
    /// On the way back, columns of the shadow alone in which a row that is new can have no value.
    pub(crate) valueless: Vec<String>,
    pub(crate) same_order: bool,
    /// The first log id worth reading.
    pub(crate) floor: u64,
}

impl Shape {
    /// Puts the shape together.
    ///
    /// # Errors
    /// A column of the run's facts that the catalogue no longer shows.
    pub(crate) fn new(spec: &RunSpec, source: &Table, shadow: &Table) -> DbResult<Self> {
        let find = |table: &Table, name: &str| {
            table.column(name).cloned().ok_or_else(|| {
                DbError::new(
                    ErrorKind::SourceChanged,
                    format!("looking for column {name}"),
                    format!("{}.{}", table.schema, table.name),
                )
                .said(match spec.way {
                    Way::Forward => "somebody altered the table since the run began",
                    Way::Back => "somebody altered the table since the swap",
                })
            })
        };
        let mut key = Vec::new();
        for (position, column) in spec.key.columns.iter().enumerate() {
            let old = find(source, &column.source)?;
            let new = find(shadow, &column.target)?;
            key.push(key_part(position, &old, &new, column.fit, spec.way)?);
        }
        let mut pairs = Vec::new();
        for (index, pair) in spec.mapping.pairs.iter().enumerate() {
            let old = find(source, &pair.source)?;
            let new = find(shadow, &pair.target)?;
            pairs.push(match spec.way {
                Way::Forward => column_pair(index, &old, &new)?,
                Way::Back => column_pair_back(index, &old, &new)?,
            });
        }
        let mut kept = Vec::new();
        for name in alone(spec, shadow) {
            let column = find(shadow, &name)?;
            if !column.generated {
                kept.push((quote(&name)?, column_type(&column)));
            }
        }
        let mut implied = Vec::new();
        for name in &spec.mapping.added {
            let column = find(shadow, name)?;
            // On the way back nothing is made up: a row that is new has no value there.
            if spec.way == Way::Forward
                && !column.has_default
                && let Some(value) = types::implied_default(&column)
            {
                implied.push((quote(name)?, value));
            }
        }
        let table = |name: &str| quote_table(&spec.schema, name);
        Ok(Self {
            way: spec.way,
            table: format!("{}.{}", spec.schema, spec.table),
            source: table(&spec.table)?,
            shadow: table(&spec.names.shadow)?,
            log: table(&spec.names.log)?,
            retired: table(&spec.names.retired)?,
            stage: table(&format!("underpin_stage_{}", spec.run_id))?,
            source_index: quote(&spec.key.source_index)?,
            target_index: quote(&spec.key.target_index)?,
            key,
            pairs,
            kept,
            implied,
            valueless: valueless(spec, shadow),
            same_order: spec.key.same_order,
            floor: 0,
        })
    }

    /// The same shape with the roles after the rename: rows come from the retired table and go into
    /// the one that now bears the source's name.
    pub(crate) fn after_rename(&self) -> Self {
        Self { source: self.retired.clone(), shadow: self.source.clone(), ..self.clone() }
    }

    /// `a, b, c` over a list with a prefix for each name.
    pub(crate) fn list<T>(items: &[T], name: impl Fn(&T) -> String) -> String {
        items.iter().map(name).collect::<Vec<_>>().join(", ")
    }

    /// Columns that an INSERT into the shadow names, each with what it takes from `value`.
    pub(crate) fn fills(&self, value: impl Fn(usize, &Pair) -> String) -> (String, String) {
        let implied = self.implied.iter().map(|(name, value)| (name.clone(), (*value).to_owned()));
        self.fills_and(value, implied)
    }

    /// The same for rows that keep what the stage holds of the shadow's own columns.
    pub(crate) fn fills_kept(&self, value: impl Fn(usize, &Pair) -> String) -> (String, String) {
        let is_kept = |name: &String| self.kept.iter().any(|(kept, _)| kept == name);
        let implied = self.implied.iter().filter(|(name, _)| !is_kept(name));
        let implied = implied.map(|(name, value)| (name.clone(), (*value).to_owned()));
        let kept = self.kept.iter().enumerate();
        let kept = kept.map(|(index, (name, _))| (name.clone(), format!("d{index}")));
        self.fills_and(value, implied.chain(kept))
    }

    fn fills_and(
        &self,
        value: impl Fn(usize, &Pair) -> String,
        more: impl Iterator<Item = (String, String)>,
    ) -> (String, String) {
        let pairs = self.pairs.iter().enumerate().filter(|(_, pair)| !pair.is_computed);
        let pairs = pairs.map(|(index, pair)| (pair.target.clone(), value(index, pair)));
        let (names, values): (Vec<String>, Vec<String>) = pairs.chain(more).unzip();
        (names.join(", "), values.join(", "))
    }

    /// Whether the shadow's rows hold values that the source's rows do not tell.
    pub(crate) fn keeps_values(&self) -> bool {
        !self.kept.is_empty() || self.pairs.iter().any(|pair| pair.kept_if.is_some())
    }

    /// Whether two keys that are equal in the source may be two keys in the shadow.
    pub(crate) fn is_recollated(&self) -> bool {
        self.key.iter().any(|part| part.recollated.is_some())
    }

    /// Source key columns, as `s.a, s.b` for the prefix `s.`.
    pub(crate) fn source_key(&self, prefix: &str) -> String {
        Self::list(&self.key, |part| format!("{prefix}{}", part.source))
    }

    /// Log key columns, and beside them what keeps apart keys that the server takes for equal here
    /// although they are two: spellings where the collation changes, positions of an ENUM.
    pub(crate) fn log_key_apart(&self, prefix: &str) -> String {
        Self::list(&self.key, |part| {
            let name = format!("{prefix}{}", part.log);
            if part.recollated.is_some() {
                format!("{name}, CAST({name} AS BINARY)")
            } else if part.is_enum() {
                format!("{name}, {name}+0")
            } else {
                name
            }
        })
    }

    /// Log key columns.
    pub(crate) fn log_key(&self, prefix: &str) -> String {
        Self::list(&self.key, |part| format!("{prefix}{}", part.log))
    }

    /// Expressions that read the source's key as literals travel.
    pub(crate) fn key_readers(&self, prefix: &str) -> String {
        Self::list(&self.key, |part| part.kind.reader(&format!("{prefix}{}", part.source)))
    }

    /// Expressions that show the source's key to a person.
    pub(crate) fn key_shown(&self, prefix: &str) -> String {
        Self::list(&self.key, |part| part.kind.shown(&format!("{prefix}{}", part.source)))
    }

    /// `log.k = source.k AND …`, in the source's own types and collations.
    pub(crate) fn log_meets_source(&self, log: &str, source: &str) -> String {
        let parts: Vec<String> = self
            .key
            .iter()
            .map(|part| format!("{source}{} = {log}{}", part.source, part.log))
            .collect();
        parts.join(" AND ")
    }

    /// `shadow.k = source.k AND …`; where the collation changes, converted and equal byte by byte.
    pub(crate) fn shadow_meets(
        &self,
        shadow: &str,
        other: &str,
        name: impl Fn(&KeyPart) -> &str,
    ) -> String {
        let parts: Vec<String> = self
            .key
            .iter()
            .map(|part| {
                let (new, old) =
                    (format!("{shadow}{}", part.target), format!("{other}{}", name(part)));
                match &part.recollated {
                    None => part.same(&new, &old),
                    Some((charset, collation)) => format!(
                        "{new} = CONVERT({old} USING {charset}) COLLATE {collation} AND \
                         CAST({new} AS BINARY) = CAST(CONVERT({old} USING {charset}) AS BINARY)"
                    ),
                }
            })
            .collect();
        parts.join(" AND ")
    }

    /// The stage's converted key against the shadow's: same type and collation on both sides, so that
    /// the shadow's index serves; byte by byte where collations changed.
    pub(crate) fn shadow_meets_stage(&self) -> String {
        let parts: Vec<String> = self
            .key
            .iter()
            .map(|part| {
                let (new, staged) = (format!("n.{}", part.target), format!("st.t_{}", bare(part)));
                if part.recollated.is_some() {
                    format!("{new} = {staged} AND CAST({new} AS BINARY) = CAST({staged} AS BINARY)")
                } else {
                    part.same(&new, &staged)
                }
            })
            .collect();
        parts.join(" AND ")
    }

    /// The predicate of a range over columns named by `name`, as `TRUE` for the whole table.
    ///
    /// # Errors
    /// A key that is not spelled like one.
    pub(crate) fn range(
        &self,
        range: &KeyRange,
        name: impl Fn(&KeyPart) -> String,
    ) -> DbResult<String> {
        let mut fixed = 0;
        if let (Some(after), Some(up_to)) = (&range.after, &range.up_to) {
            // A prefix that both bounds share is factored out: the nested form would read all of it.
            fixed = after.0.iter().zip(&up_to.0).take_while(|(a, b)| a == b).count();
            fixed = std::cmp::min(fixed, self.key.len().saturating_sub(1));
        }
        let mut parts = Vec::new();
        if let Some(after) = &range.after {
            self.check(after)?;
            for (part, value) in self.key.iter().zip(&after.0).take(fixed) {
                parts.push(part.kind.equal(&name(part), value));
            }
            parts.push(self.beyond(after, fixed, &name, false));
        }
        if let Some(up_to) = &range.up_to {
            self.check(up_to)?;
            parts.push(self.beyond(up_to, fixed, &name, true));
        }
        Ok(if parts.is_empty() { "TRUE".to_owned() } else { parts.join(" AND ") })
    }

    /// Whether a log entry (alias `l`) lies beyond the frontier, as an expression of 0 or 1.
    ///
    /// # Errors
    /// As [`Self::range`].
    pub(crate) fn beyond_frontier(&self, frontier: &Frontier, prefix: &str) -> DbResult<String> {
        match frontier {
            Frontier::Start => Ok("1".to_owned()),
            Frontier::End => Ok("0".to_owned()),
            Frontier::At(key) => {
                self.check(key)?;
                Ok(self.beyond(key, 0, &|part: &KeyPart| format!("{prefix}{}", part.log), false))
            }
        }
    }

    /// `(a > 1) OR (a = 1 AND b > 2)`: row constructors are not ranged over by any server, this is.
    /// With `up_to`: less or equal.
    fn beyond(
        &self,
        key: &Key,
        skip: usize,
        name: &impl Fn(&KeyPart) -> String,
        up_to: bool,
    ) -> String {
        let columns: Vec<(&KeyPart, &String)> = self.key.iter().zip(&key.0).skip(skip).collect();
        let mut alternatives = Vec::new();
        for (position, (part, value)) in columns.iter().enumerate() {
            let mut terms: Vec<String> = columns
                .iter()
                .take(position)
                .map(|(earlier, value)| earlier.kind.equal(&name(earlier), value))
                .collect();
            terms.push(if up_to {
                part.kind.less(&name(part), value)
            } else {
                part.kind.greater(&name(part), value)
            });
            alternatives.push(format!("({})", terms.join(" AND ")));
        }
        if up_to {
            let terms: Vec<String> =
                columns.iter().map(|(part, value)| part.kind.equal(&name(part), value)).collect();
            alternatives.push(format!("({})", terms.join(" AND ")));
        }
        format!("({})", alternatives.join(" OR "))
    }

    /// A key comes back from the run's record: it must look like one before it becomes SQL.
    fn check(&self, key: &Key) -> DbResult<()> {
        let fits = key.0.len() == self.key.len()
            && self.key.iter().zip(&key.0).all(|(part, value)| part.kind.is_spelled_well(value));
        if fits {
            Ok(())
        } else {
            Err(DbError::new(ErrorKind::Other, "reading a key bound", self.table.clone())
                .help("The run's record does not fit the table's key; abort the run"))
        }
    }
}

/// Columns of the old shape alone in which a row that is new can have no value.
fn valueless(spec: &RunSpec, shadow: &Table) -> Vec<String> {
    let mut names = if spec.way == Way::Back { alone(spec, shadow) } else { Vec::new() };
    names.retain(|name| shadow.column(name).is_some_and(|column| !column.has_default));
    names
}

/// Columns of the shadow whose values a row keeps.
fn alone(spec: &RunSpec, shadow: &Table) -> Vec<String> {
    let mut names = spec.volatile_added.clone();
    if spec.way == Way::Back {
        // Those too that the new shape computes: they are in no pair.
        let stands = |name: &String| {
            names.contains(name) || spec.mapping.pairs.iter().any(|pair| pair.target == *name)
        };
        let computed: Vec<String> = shadow
            .columns
            .iter()
            .map(|column| column.name.clone())
            .filter(|name| !stands(name))
            .collect();
        names.extend(computed);
    }
    names
}

/// The log's column name without its quotes; it is ours and needs none.
pub(crate) fn bare(part: &KeyPart) -> &str {
    part.log.trim_matches('`')
}

fn key_part(
    position: usize,
    old: &Column,
    new: &Column,
    fit: KeyFit,
    way: Way,
) -> DbResult<KeyPart> {
    let kind = KeyKind::of(old).ok_or_else(|| {
        DbError::new(ErrorKind::Refused, "reading the key", old.name.clone())
            .said(format!("type {} cannot be a key here", old.full_type))
    })?;
    let recollated = match (fit, &new.charset, &new.collation) {
        (KeyFit::Recollated, Some(charset), Some(collation)) => {
            Some((charset.clone(), collation.clone()))
        }
        _ => None,
    };
    Ok(KeyPart {
        source: quote(&old.name)?,
        target: quote(&new.name)?,
        log: format!("`k{position}`"),
        is_text: matches!(kind, KeyKind::Text { .. }),
        source_type: column_type(old),
        // On the way back the shadow's type may be too narrow for a key that came and went.
        target_type: match (way, fit, &kind) {
            (Way::Back, KeyFit::Wider, kind) if !matches!(kind, KeyKind::Enum { .. }) => {
                column_type(old)
            }
            _ => column_type(new),
        },
        kind,
        recollated,
    })
}

fn column_pair(index: usize, old: &Column, new: &Column) -> DbResult<Pair> {
    let (source, target) = (quote(&old.name)?, quote(&new.name)?);
    let (source_form, target_form) =
        forms::comparison(old, &format!("s.{source}"), new, &format!("n.{target}"));
    let staged_loss = forms::loses_silently(old, new).then(|| {
        let (was, is) = forms::comparison(old, &format!("o{index}"), new, &format!("c{index}"));
        format!("NOT ({was} <=> {is})")
    });
    Ok(Pair {
        source,
        target,
        stage_type: column_type(new),
        source_form,
        target_form,
        source_type: column_type(old),
        read_as_text: forms::is_read_as_text(old, new),
        nullable: old.nullable || new.nullable,
        staged_loss,
        kept_if: None,
        is_computed: false,
    })
}

/// A pair on the way back: `new` is the source's column, `old` the shadow's. Compared as on the way
/// forward: the old value, converted by the change, is what the new row must hold.
fn column_pair_back(index: usize, new: &Column, old: &Column) -> DbResult<Pair> {
    let (source, target) = (quote(&new.name)?, quote(&old.name)?);
    let (target_form, source_form) =
        forms::comparison(old, &format!("n.{target}"), new, &format!("s.{source}"));
    let converts = !old.generated && !forms::is_unchanged(old, new);
    let staged_loss = converts.then(|| {
        let (is, was) = forms::comparison(old, &format!("c{index}"), new, &format!("o{index}"));
        format!("NOT ({was} <=> {is})")
    });
    let kept_if = converts.then(|| KeptIf {
        forward_as_text: forms::is_read_as_text(old, new),
        same: forms::identical(new, &format!("st.f{index}"), &format!("st.o{index}")),
    });
    Ok(Pair {
        source,
        target,
        stage_type: column_type(old),
        source_form,
        target_form,
        source_type: column_type(new),
        read_as_text: forms::is_read_as_text(new, old),
        nullable: old.nullable || new.nullable,
        staged_loss,
        kept_if,
        is_computed: old.generated,
    })
}

/// The column's type as a definition: type, character set, collation, spatial reference.
fn column_type(column: &Column) -> String {
    let mut definition = column.full_type.clone();
    if let (Some(charset), Some(collation)) = (&column.charset, &column.collation) {
        definition.push_str(&format!(" CHARACTER SET {charset} COLLATE {collation}"));
    }
    if let Some(srs_id) = column.srs_id {
        definition.push_str(&format!(" SRID {srs_id}"));
    }
    definition
}
