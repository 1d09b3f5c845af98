//! What each loader makes of a scalar: PyYAML's resolver is YAML 1.1 with its own float rule,
//! and the others are that with changes.

use super::{Dialect, Scalar, Style};

/// Types a scalar as `dialect` does.
pub fn resolve(text: &str, style: Style, tag: Option<&str>, dialect: Dialect) -> Scalar {
    if style != Style::Plain || tag.is_some_and(|t| t == "!!str" || t == "!") {
        return Scalar::Str(text.to_owned());
    }
    match dialect {
        Dialect::Toml => toml(text),
        Dialect::Json => json(text),
        Dialect::Core12 => core12(text),
        Dialect::PyYaml => yaml11(text, false),
        Dialect::OmegaConf | Dialect::JsonArgparse => yaml11(text, true),
    }
}

fn toml(text: &str) -> Scalar {
    match text {
        "true" => Scalar::Bool(true),
        "false" => Scalar::Bool(false),
        _ => {
            let digits = text.replace('_', "");
            digits
                .parse()
                .map(Scalar::Int)
                .or_else(|_| digits.parse().map(Scalar::Float))
                .unwrap_or_else(|_| Scalar::DateTime(text.to_owned()))
        }
    }
}

fn json(text: &str) -> Scalar {
    if let Some(x) = python_number(text) {
        return Scalar::Float(x);
    }
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(serde_json::Value::Null) => Scalar::Null,
        Ok(serde_json::Value::Bool(b)) => Scalar::Bool(b),
        Ok(serde_json::Value::Number(n)) => {
            n.as_i64().map(Scalar::Int).or_else(|| n.as_f64().map(Scalar::Float)).unwrap_or(Scalar::Null)
        }
        _ if text == "~" => Scalar::Null,
        _ => Scalar::Str(text.to_owned()),
    }
}

/// The numbers of Python's json module that JSON has not.
pub(super) fn python_number(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

fn core12(text: &str) -> Scalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "true" | "True" | "TRUE" => return Scalar::Bool(true),
        "false" | "False" | "FALSE" => return Scalar::Bool(false),
        _ => {}
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return i64::from_str_radix(digits, 8).map_or_else(|_| Scalar::Str(text.to_owned()), Scalar::Int);
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return i64::from_str_radix(digits, 16).map_or_else(|_| Scalar::Str(text.to_owned()), Scalar::Int);
    }
    if let Some(x) = special_float(text) {
        return Scalar::Float(x);
    }
    number(text)
}

fn special_float(text: &str) -> Option<f64> {
    let unsigned = text.trim_start_matches(['+', '-']);
    match unsigned {
        ".inf" | ".Inf" | ".INF" => {
            Some(if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY })
        }
        ".nan" | ".NaN" | ".NAN" if unsigned.len() == text.len() => Some(f64::NAN),
        _ => None,
    }
}

/// Decimal integers and floats; anything else is text.
fn number(text: &str) -> Scalar {
    let starts = text.trim_start_matches(['+', '-']);
    let numeric = starts.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && starts.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    if !numeric {
        return Scalar::Str(text.to_owned());
    }
    if let Ok(n) = text.parse::<i64>() {
        return Scalar::Int(n);
    }
    text.parse().map_or_else(|_| Scalar::Str(text.to_owned()), Scalar::Float)
}

/// PyYAML's implicit resolvers (`yaml/resolver.py`), in their order.
fn yaml11(text: &str, exponent_floats: bool) -> Scalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return Scalar::Bool(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Scalar::Bool(false);
        }
        _ => {}
    }
    if let Some(x) = special_float(text) {
        return Scalar::Float(x);
    }
    float11(text, exponent_floats)
        .map(Scalar::Float)
        .or_else(|| int11(text).map(|n| i64::try_from(n).map_or(Scalar::Float(n as f64), Scalar::Int)))
        .unwrap_or_else(|| {
            if !exponent_floats && is_date(text) {
                Scalar::DateTime(text.to_owned())
            } else {
                Scalar::Str(text.to_owned())
            }
        })
}

fn float11(text: &str, exponent_floats: bool) -> Option<f64> {
    let body = text.trim_start_matches(['+', '-']);
    if text.len() - body.len() > 1 {
        return None;
    }
    let (mantissa, exponent) = match body.find(['e', 'E']) {
        Some(at) => (&body[..at], Some(&body[at + 1..])),
        None => (body, None),
    };
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let mantissa_ok = match fraction {
        Some(fraction) => {
            digits(whole)
                && digits(fraction)
                && (whole.starts_with(|c: char| c.is_ascii_digit())
                    || (whole.is_empty() && !fraction.is_empty()))
        }
        // A float without a dot needs the exponent rule of OmegaConf and jsonargparse.
        None => {
            exponent_floats
                && exponent.is_some()
                && !whole.is_empty()
                && digits(whole)
                && !whole.starts_with('_')
        }
    };
    let exponent_ok = match exponent {
        None => fraction.is_some(),
        Some(exponent) => {
            let unsigned = exponent.trim_start_matches(['+', '-']);
            let signed = exponent.len() - unsigned.len() == 1;
            !unsigned.is_empty()
                && unsigned.bytes().all(|b| b.is_ascii_digit())
                && (signed || exponent_floats)
                && (exponent_floats || fraction.is_some())
                // `.5e3` has no exponent form in either loader's pattern.
                && !whole.is_empty()
        }
    };
    if !(mantissa_ok && exponent_ok) {
        return None;
    }
    text.replace('_', "").parse().ok()
}

fn int11(text: &str) -> Option<i128> {
    let (negative, body) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if !body.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let value = if body.contains(':') {
        let mut parts = body.split(':');
        let first: i128 = parts.next()?.replace('_', "").parse().ok()?;
        if body.starts_with('0') {
            return None;
        }
        parts.try_fold(first, |sum, part| {
            let n: i128 = part.parse().ok().filter(|n| *n < 60 && part.len() <= 2)?;
            sum.checked_mul(60)?.checked_add(n)
        })?
    } else {
        let plain = body.replace('_', "");
        if let Some(bits) = plain.strip_prefix("0b") {
            i128::from_str_radix(bits, 2).ok()?
        } else if let Some(hex) = plain.strip_prefix("0x") {
            i128::from_str_radix(hex, 16).ok()?
        } else if plain.len() > 1 && plain.starts_with('0') {
            i128::from_str_radix(&plain, 8).ok()?
        } else {
            plain.parse().ok()?
        }
    };
    Some(if negative { -value } else { value })
}

fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 8
        && bytes[..4].iter().all(u8::is_ascii_digit)
        && bytes[4] == b'-'
        && text
            .split(['-', 'T', ' ', ':', '.', 'Z', '+', 't'])
            .all(|part| part.bytes().all(|b| b.is_ascii_digit()))
        && text.split('-').nth(2).is_some_and(|day| day.starts_with(|c: char| c.is_ascii_digit()))
}
