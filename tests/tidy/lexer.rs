//! Cuts Rust source into words, marks, literals and comments, each with its line.
//!
//! It knows just enough of the language that a rule never mistakes a comment or a string for code, or a lifetime for a
//! character. Everything it is given compiles, so it need not report errors.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An identifier, a keyword or a number; a raw identifier without its `r#`.
    Word,
    /// One character of punctuation, or `::`.
    Mark,
    /// A string or a character with its quotes, or a lifetime.
    Literal,
    /// A comment with its opening; a comment over several lines is one token for each line.
    Comment,
}

/// A piece of source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) text: String,
    /// Counted from 1; where the token begins.
    pub(crate) line: usize,
}

impl Token {
    /// Is this the word or mark `text`, rather than a literal or a comment that reads the same?
    pub(crate) fn is(&self, text: &str) -> bool {
        matches!(self.kind, Kind::Word | Kind::Mark) && self.text == text
    }
}

/// Cuts `source` into tokens.
pub(crate) fn lex(source: &str) -> Vec<Token> {
    let mut lexer = Lexer { rest: source, line: 1, tokens: Vec::new() };
    while let Some(first) = lexer.rest.chars().next() {
        lexer.step(first);
    }
    lexer.tokens
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    tokens: Vec<Token>,
}

impl Lexer<'_> {
    fn step(&mut self, first: char) {
        let rest = self.rest;
        if first.is_whitespace() {
            self.skip(first.len_utf8());
        } else if rest.starts_with("//") {
            self.take(Kind::Comment, rest.find('\n').unwrap_or(rest.len()));
        } else if rest.starts_with("/*") {
            self.block_comment();
        } else if let Some(length) = string_length(rest) {
            self.take(Kind::Literal, length);
        } else if first == '\'' {
            self.take(Kind::Literal, quote_length(rest));
        } else if is_word(first) {
            self.word();
        } else if rest.starts_with("::") {
            self.take(Kind::Mark, 2);
        } else {
            self.take(Kind::Mark, first.len_utf8());
        }
    }

    fn word(&mut self) {
        // A string with the prefix `r#"` was taken before, so this is a raw identifier.
        if self.rest.starts_with("r#") {
            self.skip(2);
        }
        self.take(Kind::Word, self.rest.find(|c| !is_word(c)).unwrap_or(self.rest.len()));
    }

    fn block_comment(&mut self) {
        let length = block_comment_length(self.rest);
        for line in self.rest[..length].split_inclusive('\n') {
            self.take(Kind::Comment, line.len());
        }
    }

    fn take(&mut self, kind: Kind, length: usize) {
        let text = self.rest[..length].to_owned();
        self.tokens.push(Token { kind, text, line: self.line });
        self.skip(length);
    }

    fn skip(&mut self, length: usize) {
        self.line += self.rest[..length].matches('\n').count();
        self.rest = &self.rest[length..];
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Block comments nest.
fn block_comment_length(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text[at..];
        let step = match rest {
            _ if rest.starts_with("/*") => 2,
            _ if rest.starts_with("*/") => 2,
            _ => rest.chars().next().map_or(1, char::len_utf8),
        };
        depth += i32::from(rest.starts_with("/*")) - i32::from(rest.starts_with("*/"));
        at += step;
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of the string that `text` begins with: plain, byte, C or raw.
fn string_length(text: &str) -> Option<usize> {
    let prefix = ["br", "cr", "r", "b", "c", ""].into_iter().find(|prefix| {
        let rest = text.strip_prefix(prefix).map(|rest| match prefix.ends_with('r') {
            true => rest.trim_start_matches('#'),
            false => rest,
        });
        rest.is_some_and(|rest| rest.starts_with('"'))
    })?;
    let rest = &text[prefix.len()..];
    if !prefix.ends_with('r') {
        return Some(prefix.len() + escaped_length(rest, '"'));
    }
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    let end = format!("\"{}", "#".repeat(hashes));
    let body = &rest[hashes + 1..];
    let length = body.find(&end).map_or(body.len(), |at| at + end.len());
    Some(prefix.len() + hashes + 1 + length)
}

/// The length of what stands between two `quote`s, both included; a backslash guards the next character.
fn escaped_length(text: &str, quote: char) -> usize {
    let mut guarded = false;
    for (at, c) in text.char_indices().skip(1) {
        if c == quote && !guarded {
            return at + 1;
        }
        guarded = c == '\\' && !guarded;
    }
    text.len()
}

/// The length of the character or lifetime that `text` begins with.
fn quote_length(text: &str) -> usize {
    let mut after = text[1..].chars();
    match (after.next(), after.next()) {
        (Some('\\'), _) | (_, Some('\'')) => escaped_length(text, '\''),
        _ => 1 + text[1..].find(|c| !is_word(c)).unwrap_or(text.len() - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, lex};

    fn of(kind: Kind, source: &str) -> Vec<String> {
        lex(source).into_iter().filter(|token| token.kind == kind).map(|token| token.text).collect()
    }

    #[test]
    fn comments_are_no_code() {
        let source = "a // b \"c\n/* d /* e */ f */ g /// h";
        assert_eq!(of(Kind::Word, source), ["a", "g"]);
        assert_eq!(of(Kind::Comment, source), ["// b \"c", "/* d /* e */ f */", "/// h"]);
    }

    #[test]
    fn strings_are_no_code() {
        let source = r####"a "b // \" c" d r#"e " f"# g b"h" i br##"j"# k"## l c"m" n "\\" o"####;
        assert_eq!(of(Kind::Word, source), ["a", "d", "g", "i", "l", "n", "o"]);
        assert!(of(Kind::Comment, source).is_empty());
    }

    #[test]
    fn a_lifetime_opens_no_character() {
        assert_eq!(
            of(Kind::Word, "<'a> b 'c' d '\\'' e '\"' f b'g' 'static h"),
            ["b", "d", "e", "f", "b", "h"]
        );
        assert_eq!(of(Kind::Literal, "&'a str, 'é', '\\u{41}'"), ["'a", "'é'", "'\\u{41}'"]);
    }

    #[test]
    fn a_raw_identifier_is_its_name_and_a_raw_string_is_not_one() {
        assert_eq!(of(Kind::Word, "r#unsafe r#\"x\"# r"), ["unsafe", "r"]);
    }

    #[test]
    fn a_path_separator_is_one_mark() {
        assert_eq!(of(Kind::Mark, "a::b: c"), ["::", ":"]);
    }

    #[test]
    fn lines_are_counted_through_comments_and_strings() {
        let tokens = lex("a\n/* b\nc */ d \"e\nf\" g");
        let lines: Vec<_> =
            tokens.iter().map(|token| (token.text.trim_end(), token.line)).collect();
        assert_eq!(
            lines,
            [("a", 1), ("/* b", 2), ("c */", 3), ("d", 3), ("\"e\nf\"", 3), ("g", 4)]
        );
    }
}
