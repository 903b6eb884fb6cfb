//! The keys of one table: each is taken once, with its type checked; what is left over is unknown.

use std::ops::RangeInclusive;

use toml_edit::{Item, TableLike, Value};

use super::{
    report::{Flaw, Report, Subject},
    secrecy::cut,
};

/// A value and where its key or it stands.
#[derive(Clone, Debug)]
pub(super) struct Found<T> {
    /// Byte offset in the file.
    pub(super) at: usize,
    /// What stands there.
    pub(super) value: T,
}

/// One table while it is read.
pub(super) struct Fields<'a> {
    table: &'a mut dyn TableLike,
    /// Where the piece of text begins that the table's spans count from.
    base: usize,
    /// Where the table begins in the file.
    pub(super) at: usize,
    /// Whose keys these are.
    pub(super) subject: Subject,
}

impl<'a> Fields<'a> {
    pub(super) fn new(table: &'a mut dyn TableLike, base: usize, at: usize, subject: Subject) -> Self {
        Self { table, base, at, subject }
    }

    /// A problem with one of the keys.
    pub(super) fn refuse(&self, report: &mut Report<'_>, at: usize, key: &str, flaw: Flaw) {
        report.refuse(at, &self.subject, key, flaw);
    }

    /// Is this key there?
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Takes a key out. Its value is owned, so that a secret can be erased.
    pub(super) fn take(&mut self, key: &str) -> Option<Found<Item>> {
        let at = self.position(key);
        let value = self.table.remove(key)?;
        Some(Found { at, value })
    }

    /// A text.
    pub(super) fn text(
        &mut self,
        report: &mut Report<'_>,
        key: &str,
        example: &str,
    ) -> Option<Found<String>> {
        let Found { at, value } = self.take(key)?;
        match value {
            Item::Value(Value::String(text)) => Some(Found { at, value: text.into_value() }),
            other => {
                let flaw =
                    Flaw::new(describe(&other), format!("write a text in quotes: {key} = \"{example}\""));
                self.refuse(report, at, key, flaw);
                None
            }
        }
    }

    /// A list of texts, each with the place of its own.
    pub(super) fn texts(
        &mut self,
        report: &mut Report<'_>,
        key: &str,
        example: &str,
    ) -> Option<Vec<Found<String>>> {
        let Found { at, value } = self.take(key)?;
        let array = match value {
            Item::Value(Value::Array(array)) => array,
            Item::Value(Value::String(text)) => {
                let flaw = Flaw::new(
                    format!("the text {:?}", text.value()),
                    format!("write a list: {key} = [{}]", quoted(text.value())),
                );
                self.refuse(report, at, key, flaw);
                return None;
            }
            other => {
                let flaw = Flaw::new(describe(&other), format!("write a list: {key} = [\"{example}\"]"));
                self.refuse(report, at, key, flaw);
                return None;
            }
        };
        let mut texts = Vec::with_capacity(array.len());
        for value in array {
            let at = value.span().map_or(at, |span| self.base + span.start);
            match value {
                Value::String(text) => texts.push(Found { at, value: text.into_value() }),
                other => {
                    let flaw =
                        Flaw::new(describe_value(&other), format!("write texts in quotes: \"{example}\""));
                    self.refuse(report, at, key, flaw);
                }
            }
        }
        Some(texts)
    }

    /// A whole number within bounds, or one of some words that stand for a number.
    pub(super) fn number(
        &mut self,
        report: &mut Report<'_>,
        key: &str,
        range: RangeInclusive<i64>,
        word: impl Fn(&str) -> Option<i64>,
        remedy: &str,
    ) -> Option<Found<i64>> {
        let Found { at, value } = self.take(key)?;
        let number = match &value {
            Item::Value(Value::Integer(number)) => Some(*number.value()),
            Item::Value(Value::String(text)) => word(text.value()),
            _ => None,
        };
        if let Some(value) = number.filter(|number| range.contains(number)) {
            return Some(Found { at, value });
        }
        self.refuse(report, at, key, Flaw::new(describe(&value), remedy));
        None
    }

    /// What nobody took: name and place.
    pub(super) fn left_over(self) -> Vec<Found<String>> {
        let keys: Vec<String> = self.table.iter().map(|(key, _)| key.to_owned()).collect();
        keys.into_iter().map(|value| Found { at: self.position(&value), value }).collect()
    }

    fn position(&self, key: &str) -> usize {
        let span = self.table.get_key_value(key).and_then(|(key, item)| key.span().or_else(|| item.span()));
        span.map_or(self.at, |span| self.base + span.start)
    }
}

/// What a value is, in words; long texts are cut.
pub(super) fn describe(item: &Item) -> String {
    match item {
        Item::Value(value) => describe_value(value),
        Item::Table(_) => "a table".to_owned(),
        Item::ArrayOfTables(_) => "a list of tables".to_owned(),
        Item::None => "nothing".to_owned(),
    }
}

/// See [`describe`].
pub(super) fn describe_value(value: &Value) -> String {
    match value {
        Value::String(text) => format!("the text {:?}", cut(text.value())),
        Value::Integer(number) => format!("the number {}", number.value()),
        Value::Float(number) => format!("the fraction {}", number.value()),
        Value::Boolean(truth) => format!("the truth value {}", truth.value()),
        Value::Datetime(_) => "a date".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::InlineTable(_) => "a table".to_owned(),
    }
}

/// `a, b` as `"a", "b"`.
fn quoted(text: &str) -> String {
    let parts: Vec<_> = text.split(',').map(|part| format!("{:?}", part.trim())).collect();
    parts.join(", ")
}
