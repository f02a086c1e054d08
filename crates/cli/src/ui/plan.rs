//! A plan as a page of text.
//!
//! Owns the wording; every judgement in it is preflight's.

use underpin_core::finding::{Finding, Severity, is_refused};
use underpin_core::mapping::KeySpec;
use underpin_core::plan::{Flow, Plan, RunSpec, Strategy};

use super::figures::{bytes, count};

/// Columns listed by name before the rest is only counted.
const NAMES_MAX: usize = 12;

/// The page: what, how, what stands in the way.
pub(crate) fn plan_text(plan: &Plan, statement: &str) -> String {
    let mut facts: Vec<(&str, String)> = Vec::new();
    if let Some(spec) = &plan.spec {
        facts.push(("table", format!("{}.{}{}", spec.schema, spec.table, size(spec))));
    }
    facts.push(("server", plan.server.clone()));
    facts.push(("replicas", listed(&plan.replicas, "none known")));
    facts.push(("statement", indented(statement.trim())));
    // Without facts preflight refused before the method was decided.
    if plan.spec.is_some() {
        facts.push(("method", method(plan.strategy).to_owned()));
    }
    if let (Some(spec), Strategy::Shadow) = (&plan.spec, plan.strategy) {
        facts.extend(copy_facts(spec));
    }
    let mut out = String::new();
    for (name, fact) in facts {
        out.push_str(&format!("{name:<10} {fact}\n"));
    }
    if !plan.findings.is_empty() {
        out.push('\n');
    }
    for finding in by_severity(&plan.findings) {
        out.push_str(&finding_text(finding));
    }
    out.push('\n');
    out.push_str(verdict(plan));
    out
}

fn size(spec: &RunSpec) -> String {
    let rows = format!(", about {} rows", count(spec.rows_estimate));
    match spec.rows_estimate.saturating_mul(spec.row_bytes) {
        0 => rows,
        total => format!("{rows}, {}", bytes(total)),
    }
}

fn method(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::Native => "by the server itself, without a copy and without a long lock",
        Strategy::Shadow => "copy into a shadow table, compare, swap",
    }
}

fn copy_facts(spec: &RunSpec) -> Vec<(&'static str, String)> {
    let mapping = &spec.mapping;
    let named = |names: Vec<String>| listed(&names, "none");
    let renamed: Vec<String> = mapping
        .pairs
        .iter()
        .filter(|pair| pair.source != pair.target)
        .map(|pair| format!("{} -> {}", pair.source, pair.target))
        .collect();
    let changed: Vec<String> =
        mapping.pairs.iter().filter(|pair| pair.changed).map(|pair| pair.target.clone()).collect();
    let columns = [
        ("added", named(mapping.added.clone())),
        ("dropped", named(mapping.dropped.clone())),
        ("renamed", named(renamed)),
        ("converted", named(changed)),
    ];
    let columns = columns
        .into_iter()
        .filter(|(_, names)| names != "none")
        .map(|(what, names)| format!("{what} {names}"))
        .collect::<Vec<_>>();
    let indexes = match spec.deferred_indexes.len() {
        0 => "filled while copying".to_owned(),
        later => format!("{later} built after the copy"),
    };
    let names = &spec.names;
    let creates = match spec.flow {
        Flow::KeyRanges => {
            format!("{} and {}, three triggers, in {}", names.shadow, names.log, spec.schema)
        }
        // There they stand in a schema of their own.
        Flow::Blocks => {
            format!("shadow and change log in schema underpin_{}, triggers", spec.run_id)
        }
    };
    vec![
        ("key", key(&spec.key)),
        ("columns", if columns.is_empty() { "as they are".to_owned() } else { columns.join("; ") }),
        ("indexes", indexes),
        ("creates", creates),
    ]
}

fn key(key: &KeySpec) -> String {
    let columns: Vec<String> = key
        .columns
        .iter()
        .map(|column| match column.source == column.target {
            true => column.source.clone(),
            false => format!("{} -> {}", column.source, column.target),
        })
        .collect();
    format!("{} ({})", key.source_index, columns.join(", "))
}

fn listed(names: &[String], none: &str) -> String {
    match names.len() {
        0 => none.to_owned(),
        all if all <= NAMES_MAX => names.join(", "),
        all => format!("{} and {} more", names[..NAMES_MAX].join(", "), all - NAMES_MAX),
    }
}

/// Later lines stand under the first.
fn indented(text: &str) -> String {
    text.replace('\n', "\n           ")
}

/// The worst first; within a severity in the order of preflight.
fn by_severity(findings: &[Finding]) -> Vec<&Finding> {
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    sorted
}

fn finding_text(finding: &Finding) -> String {
    let name = match finding.severity {
        Severity::Refusal => "refused",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    let mut out = format!("{name:<10} {} [{}]\n", indented(&finding.message), finding.code);
    if !finding.remedy.is_empty() {
        out.push_str(&format!("           -> {}\n", indented(&finding.remedy)));
    }
    out
}

fn verdict(plan: &Plan) -> &'static str {
    match (is_refused(&plan.findings), plan.strategy) {
        (true, _) => "Refused. Nothing was created.\n",
        (false, Strategy::Native) => {
            "The change can be made, by the server at once. To copy all the same: --strategy shadow\n"
        }
        (false, Strategy::Shadow) => "The change can be made.\n",
    }
}

#[cfg(test)]
mod tests;
