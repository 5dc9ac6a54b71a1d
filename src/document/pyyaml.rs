//! Plain YAML scalars that PyYAML, which mergekit and the harness read with, takes for something else than YAML 1.2
//! does.

/// What PyYAML makes of a plain scalar that this program reads otherwise, in words; `None` where both agree.
pub fn other_reading(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    // PyYAML knows each word in lower case, in capitals and with a capital first letter.
    let cased = [lower.clone(), text.to_ascii_uppercase(), capitalised(&lower)].iter().any(|known| known == text);
    match lower.as_str() {
        "yes" | "on" if cased => return Some("true".to_owned()),
        "no" | "off" if cased => return Some("false".to_owned()),
        "=" => return Some("an error".to_owned()),
        _ => {}
    }
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if !digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return None;
    }
    let plain: String = digits.chars().filter(|character| *character != '_').collect();
    let whole = |value: i64| Some(format!("the whole number {}", sign * value));
    // Digits alone: a sign of their own would be read as one.
    let based = |digits: &str, radix| {
        let all_digits = digits.chars().all(|digit| digit.is_digit(radix));
        all_digits.then(|| i64::from_str_radix(digits, radix).ok()).flatten().and_then(whole)
    };
    if let Some(binary) = plain.strip_prefix("0b") {
        return based(binary, 2);
    }
    if let Some(hex) = plain.strip_prefix("0x") {
        let same = digits == plain && digits.len() == text.len();
        return if same { None } else { based(hex, 16) };
    }
    if plain.starts_with("0o") {
        return Some("a text".to_owned());
    }
    if plain.len() > 1 && plain.starts_with('0') && plain.bytes().all(|byte| byte.is_ascii_digit()) {
        return match i64::from_str_radix(&plain, 8) {
            // All zeros, or one digit, are the same in base 8.
            Ok(0) => None,
            Ok(value) => whole(value),
            Err(_) => Some("a text".to_owned()),
        };
    }
    if is_date(digits) && digits.len() == text.len() {
        return Some("a date".to_owned());
    }
    if let Some(value) = sexagesimal(&plain) {
        return Some(format!("the number {}", value * sign as f64));
    }
    let number = plain.parse::<f64>().is_ok();
    let whole_digits = plain.bytes().all(|byte| byte.is_ascii_digit());
    if number && whole_digits {
        return (plain != digits).then(|| format!("the number {}", &plain));
    }
    if number {
        let python = is_python_float(&plain) && !(digits.starts_with('.') && digits.len() != text.len());
        return match (python, plain == digits) {
            (true, true) => None,
            (true, false) => Some(format!("the number {plain}")),
            (false, _) => Some("a text".to_owned()),
        }
        .filter(|reading| plain == digits || reading != "a text");
    }
    None
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
}

/// Whether a number has the point and, with an exponent, the sign that PyYAML wants.
fn is_python_float(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    mantissa.contains('.') && exponent.is_none_or(|exponent| exponent.starts_with(['+', '-']))
}

/// `1:30` is ninety.
fn sexagesimal(text: &str) -> Option<f64> {
    let (first, rest) = text.split_once(':')?;
    let fraction = text.contains('.');
    if first.is_empty() || !first.bytes().all(|byte| byte.is_ascii_digit()) || (!fraction && first.starts_with('0')) {
        return None;
    }
    rest.split(':').try_fold(first.parse::<f64>().ok()?, |value, part| {
        let digits = part.split('.').next().unwrap_or_default();
        let sixty = (1..=2).contains(&digits.len()) && part.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        sixty.then(|| part.parse::<f64>().ok()).flatten().filter(|part| *part < 60.0).map(|part| value * 60.0 + part)
    })
}

fn is_date(text: &str) -> bool {
    let day: Vec<&str> = text.get(..10).unwrap_or_default().split('-').collect();
    let digits = |part: &str, n| part.len() == n && part.bytes().all(|byte| byte.is_ascii_digit());
    matches!(day[..], [year, month, date] if digits(year, 4) && digits(month, 2) && digits(date, 2)) && text.len() == 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_differ_where_pyyaml_follows_yaml_1_1() {
        for (text, reading) in [
            ("010", "the whole number 8"),
            ("1:30", "the number 90"),
            ("12:30:45", "the number 45045"),
            ("yes", "true"),
            ("OFF", "false"),
            ("1e-3", "a text"),
            ("1.5e5", "a text"),
            ("0o10", "a text"),
            ("0b11", "the whole number 3"),
            ("1_000", "the number 1000"),
            ("2001-01-01", "a date"),
            ("-.5", "a text"),
            ("=", "an error"),
        ] {
            assert_eq!(other_reading(text).as_deref(), Some(reading), "{text}");
        }
    }

    #[test]
    fn ordinary_scalars_are_read_alike() {
        for text in [
            "0",
            "7",
            "-3",
            "0.5",
            ".5",
            "1.0e-7",
            "1e",
            "true",
            "null",
            "0x1f",
            "a:b",
            "yEs",
            "y",
            "00",
            "1.2.3",
            "Qwen/Qwen2.5-7B",
            "3B",
            "0b-1",
            // The least whole number of 64 bits has no positive counterpart.
            "-0x-8000000000000000",
        ] {
            assert_eq!(other_reading(text), None, "{text}");
        }
    }
}
