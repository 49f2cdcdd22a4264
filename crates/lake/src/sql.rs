//! Conditions on rows, as the table's library reads them.

/// Returns a text as a literal.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Returns the condition that a field has one of some texts, or none of them.
pub(crate) fn is_among<'a>(
    field: &str,
    texts: impl IntoIterator<Item = &'a str>,
    is_negated: bool,
) -> String {
    let texts: Vec<String> = texts.into_iter().map(literal).collect();
    let not = if is_negated { "NOT " } else { "" };
    match &texts[..] {
        [] => if is_negated { "true" } else { "false" }.to_owned(),
        [only] if is_negated => format!("`{field}` != {only}"),
        [only] => format!("`{field}` = {only}"),
        _ => format!("`{field}` {not}IN ({})", texts.join(", ")),
    }
}

/// Returns the condition that a row has one of some addresses.
pub(crate) fn is_row(addresses: &[u64]) -> String {
    let addresses: Vec<String> = addresses.iter().map(u64::to_string).collect();
    format!("{} IN ({})", crate::fields::ROW, addresses.join(", "))
}

/// Joins conditions of which all must hold; `None` for no condition.
pub(crate) fn all(conditions: impl IntoIterator<Item = String>) -> Option<String> {
    let conditions: Vec<String> = conditions
        .into_iter()
        .map(|one| format!("({one})"))
        .collect();
    (!conditions.is_empty()).then(|| conditions.join(" AND "))
}
