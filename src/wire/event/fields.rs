//! An event as loosely typed fields: the form that every codec decodes to and from which every event is
//! built.
//!
//! Invariant: memory is bounded while reading. Labels beyond the limit are counted but not kept, an ignored
//! field is skipped, and a duplicate key is an error.

use crate::core::vocab::limits::LABELS_MAX;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// The value of a field as received.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    Null,
    Integer(i64),
    Float(f64),
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    Column(Column<'a>),
    Labels(Box<Labels<'a>>),
    /// Any other value, such as a boolean or a nested array. The text names its type in refusals.
    Other(&'static str),
}

/// An array in the narrowest representation that holds it.
#[derive(Debug, Clone, PartialEq)]
pub enum Column<'a> {
    Integers(Vec<i64>),
    Floats(Vec<f64>),
    Mixed(Vec<Value<'a>>),
}

impl<'a> Column<'a> {
    pub fn len(&self) -> usize {
        match self {
            Column::Integers(all) => all.len(),
            Column::Floats(all) => all.len(),
            Column::Mixed(all) => all.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the elements as separate values.
    pub fn into_values(self) -> Vec<Value<'a>> {
        match self {
            Column::Integers(all) => all.into_iter().map(Value::Integer).collect(),
            Column::Floats(all) => all.into_iter().map(Value::Float).collect(),
            Column::Mixed(all) => all,
        }
    }

    /// Appends a value and switches to a wider representation if the current one cannot hold it.
    fn push(&mut self, value: Value<'a>) {
        match (&mut *self, value) {
            (Column::Integers(all), Value::Integer(number)) => all.push(number),
            (Column::Floats(all), Value::Float(number)) => all.push(number),
            (Column::Integers(all), Value::Float(number)) if all.is_empty() => {
                *self = Column::Floats(vec![number]);
            }
            (Column::Mixed(all), value) => all.push(value),
            (_, value) => {
                let mut all = std::mem::replace(self, Column::Integers(Vec::new())).into_values();
                all.push(value);
                *self = Column::Mixed(all);
            }
        }
    }
}

/// Label pairs as received.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Labels<'a> {
    pub pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>, // at most LABELS_MAX
    pub count: usize,
    /// The name of a label whose value is not a string.
    pub ill_typed: Option<String>,
}

macro_rules! fields {
    ($($field:ident),+ $(,)?) => {
        /// The fields that at least one type of event has; other fields are ignored.
        #[derive(Debug, Default)]
        pub struct Fields<'a> { $(pub $field: Option<Value<'a>>,)+ }

        impl<'a> Fields<'a> {
            fn slot(&mut self, name: &str) -> Option<&mut Option<Value<'a>>> {
                match name { $(stringify!($field) => Some(&mut self.$field),)+ _ => None }
            }

            fn all(&self) -> impl Iterator<Item = &Value<'a>> {
                [$(&self.$field,)+].into_iter().flatten()
            }
        }
    };
}

fields!(
    r#type,
    time,
    source,
    name,
    value,
    unit,
    labels,
    id,
    times,
    values,
    hdr,
    scale,
    pipeline,
    run,
    stage,
    status,
    attempt,
    progress,
    queued_at,
    started_at,
    finished_at,
    gate,
    threshold,
    ingest_time,
    seq,
    tick,
);

impl Fields<'_> {
    /// Returns the number of labels as received; duplicates count each time.
    pub fn label_count(&self) -> usize {
        match &self.labels {
            Some(Value::Labels(labels)) => labels.count,
            _ => 0,
        }
    }

    /// Returns whether JSON can represent every field of the event.
    pub fn is_plain(&self) -> bool {
        self.all().all(|value| match value {
            Value::Float(number) => number.is_finite(),
            Value::Bytes(_) => false,
            Value::Column(Column::Floats(all)) => all.iter().all(|number| number.is_finite()),
            Value::Column(Column::Mixed(all)) => {
                all.iter().all(|value| !matches!(value, Value::Float(n) if !n.is_finite()))
            }
            // A label whose value is not a string may become null in JSON, as NaN does, and a null label is dropped.
            Value::Labels(labels) => labels.ill_typed.is_none(),
            _ => true,
        })
    }
}

/// Reads one JSON object; it must span all bytes.
pub(crate) fn from_json(bytes: &[u8]) -> Result<Fields<'_>, serde_json::Error> {
    serde_json::from_slice(bytes)
}

/// Reads one MessagePack map; it must span all bytes.
pub(crate) fn from_msgpack(bytes: &[u8]) -> Result<Fields<'_>, rmp_serde::decode::Error> {
    rmp_serde::from_slice(bytes)
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fields<'de>, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event, which is an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Fields::default();
        let mut ignored: Vec<Cow<'_, str>> = Vec::new();
        while let Some(Text(name)) = map.next_key()? {
            // `type` is a keyword, so its field is written with the raw prefix.
            let slot = if name == "type" { Some(&mut fields.r#type) } else { fields.slot(&name) };
            let Some(slot) = slot else {
                if ignored.contains(&name) {
                    return Err(A::Error::custom(format_args!("key `{name}` is there twice")));
                }
                if ignored.len() >= IGNORED_MAX {
                    return Err(A::Error::custom("too many fields that no event has"));
                }
                ignored.push(name);
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if slot.is_some() {
                return Err(A::Error::custom(format_args!("key `{name}` is there twice")));
            }
            *slot = Some(map.next_value()?);
        }
        Ok(fields)
    }
}

/// Maximum number of ignored fields in one event. Their names are kept while the event is read, to detect duplicate
/// keys.
const IGNORED_MAX: usize = 256;

/// A string, borrowed if the codec allows it.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text<'de>, D::Error> {
        deserializer.deserialize_str(TextVisitor).map(Text)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }
    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.into()))
    }
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value<'de>, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field of an event")
    }
    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Value::Other("a boolean"))
    }
    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Value::Integer(number))
    }
    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(number).map_or(Value::Float(number as f64), Value::Integer))
    }
    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Value::Float(number))
    }
    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Owned(text.into())))
    }
    fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
        Ok(Value::Bytes(Cow::Borrowed(bytes)))
    }
    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Ok(Value::Bytes(Cow::Owned(bytes.into())))
    }
    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Value::Other("an extension type"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        // The length that a codec states is not trusted: the vector grows with the elements that exist.
        let mut column = Column::Integers(Vec::new());
        while let Some(Scalar(value)) = seq.next_element()? {
            column.push(value);
        }
        Ok(Value::Column(column))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut labels = Labels::default();
        while let Some(Text(name)) = map.next_key()? {
            labels.count += 1;
            if labels.count > LABELS_MAX {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            match map.next_value()? {
                Scalar(Value::Text(value)) => labels.pairs.push((name, value)),
                Scalar(Value::Null) => {}
                Scalar(_) => labels.ill_typed = Some(name.into_owned()),
            }
        }
        Ok(Value::Labels(Box::new(labels)))
    }
}

/// A value without nested values; the content of an array or object is skipped.
struct Scalar<'a>(Value<'a>);

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Scalar<'de>, D::Error> {
        deserializer.deserialize_any(ScalarVisitor).map(Scalar)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or a text")
    }
    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Value::Other("a boolean"))
    }
    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Value::Integer(number))
    }
    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        ValueVisitor.visit_u64(number)
    }
    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Value::Float(number))
    }
    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Owned(text.into())))
    }
    fn visit_bytes<E: Error>(self, _: &[u8]) -> Result<Self::Value, E> {
        Ok(Value::Other("bytes"))
    }
    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        ValueVisitor.visit_newtype_struct(deserializer)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Other("an array"))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Other("an object"))
    }
}
