//! Text from outside (names, answers, specs) into HTML and SVG.

/// Text that stands between tags or in a quoted attribute. Control characters, which XML forbids even as references,
/// become spaces; so do direction overrides, which would let a name reorder the line it stands in.
pub fn text(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(letter),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}' => escaped.push(' '),
            _ if letter.is_control() => escaped.push(' '),
            _ => escaped.push(letter),
        }
    }
    escaped
}

/// JSON inside a `<script>` element: no `<` (ends the element, or opens a comment in it) is left.
pub fn json(value: &serde_json::Value) -> String {
    value.to_string().replace('<', "\\u003c")
}

/// A name as part of a file name: ASCII letters, digits, points, single hyphens and underscores.
pub fn slug(name: &str) -> String {
    let mut slug = String::new();
    for letter in name.chars().take(80) {
        if letter.is_ascii_alphanumeric() || letter == '.' || letter == '_' {
            slug.push(letter.to_ascii_lowercase());
        } else if !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.trim_matches(['-', '.']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_that_opens_a_tag_or_ends_an_attribute() {
        assert_eq!(text("<b a=\"1\" c='2'>&\u{7}\u{202e}"), "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;  ");
        let value = serde_json::json!({ "</script><!--": "<script>" });
        assert!(!json(&value).contains('<'));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json(&value)).unwrap(), value);
        assert_eq!(slug("../../SLERP (t=0.5)/<x>"), "slerp-t-0.5-x");
    }
}
