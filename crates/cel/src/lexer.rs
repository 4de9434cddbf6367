//! Text to tokens.

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tok {
    /// An operator or bracket.
    Op(&'static str),
    Ident(String),
    /// `` `a-b` ``: a field's name as it is.
    Quoted(String),
    Int(String),
    Uint(String),
    Float(String),
    Str(String),
    Bytes(Vec<u8>),
    Eof,
}

#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) tok: Tok,
    /// In characters.
    pub(crate) offset: usize,
    /// As it stands in the source, for messages.
    pub(crate) text: String,
}

const OPERATORS: [&str; 27] = [
    "==", "!=", "<=", ">=", "&&", "||", "in", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".", ",", "(", ")",
    "[", "]", "{", "}", "=", "&",
];

pub(crate) struct Lexer<'a> {
    chars: Vec<char>,
    at: usize,
    pub(crate) errors: Vec<(usize, String)>,
    _source: &'a str,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(source: &'a str) -> Lexer<'a> {
        Lexer { chars: source.chars().collect(), at: 0, errors: Vec::new(), _source: source }
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn skip_space(&mut self) {
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some(' ' | '\t' | '\r' | '\n' | '\u{c}'), _) => self.at += 1,
                (Some('/'), Some('/')) => {
                    while self.peek(0).is_some_and(|c| c != '\n') {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    /// All tokens, the last of which is the end; what is no token is reported and skipped.
    pub(crate) fn tokens(&mut self) -> Vec<Token> {
        let mut out = Vec::new();
        loop {
            self.skip_space();
            let start = self.at;
            if start >= self.chars.len() {
                out.push(Token { tok: Tok::Eof, offset: start, text: "<EOF>".into() });
                return out;
            }
            match self.next() {
                Some(tok) => out.push(Token { tok, offset: start, text: self.chars[start..self.at].iter().collect() }),
                None => {
                    self.at = self.at.max(start + 1);
                    let bad: String = self.chars[start..self.at].iter().collect();
                    self.errors.push((start, format!("Syntax error: token recognition error at: '{}'", escape(&bad))));
                }
            }
        }
    }

    fn next(&mut self) -> Option<Tok> {
        let c = self.peek(0)?;
        if let Some(tok) = self.string() {
            return tok;
        }
        if c.is_ascii_digit() || (c == '.' && self.peek(1).is_some_and(|d| d.is_ascii_digit())) {
            return Some(self.number());
        }
        if c.is_ascii_alphabetic() || c == '_' {
            let start = self.at;
            while self.peek(0).is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
                self.at += 1;
            }
            let word: String = self.chars[start..self.at].iter().collect();
            return Some(if word == "in" { Tok::Op("in") } else { Tok::Ident(word) });
        }
        if c == '`' {
            return self.quoted();
        }
        for op in OPERATORS {
            if op != "in" && op.chars().enumerate().all(|(i, c)| self.peek(i) == Some(c)) {
                if matches!(op, "=" | "&") {
                    return None;
                }
                self.at += op.len();
                return Some(Tok::Op(op));
            }
        }
        None
    }

    fn quoted(&mut self) -> Option<Tok> {
        let start = self.at + 1;
        let mut end = start;
        while let Some(c) = self.chars.get(end) {
            match c {
                '`' if end > start => {
                    self.at = end + 1;
                    return Some(Tok::Quoted(self.chars[start..end].iter().collect()));
                }
                c if c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/' | ' ') => end += 1,
                _ => return None,
            }
        }
        None
    }

    fn number(&mut self) -> Tok {
        let start = self.at;
        let digits = |l: &mut Lexer| {
            while l.peek(0).is_some_and(|c| c.is_ascii_digit()) {
                l.at += 1;
            }
        };
        if self.peek(0) == Some('0')
            && matches!(self.peek(1), Some('x'))
            && self.peek(2).is_some_and(|c| c.is_ascii_hexdigit())
        {
            self.at += 2;
            while self.peek(0).is_some_and(|c| c.is_ascii_hexdigit()) {
                self.at += 1;
            }
            return self.integer(start);
        }
        digits(self);
        let mut float = false;
        if self.peek(0) == Some('.') && self.peek(1).is_some_and(|c| c.is_ascii_digit()) {
            float = true;
            self.at += 1;
            digits(self);
        }
        if matches!(self.peek(0), Some('e' | 'E')) {
            let sign = usize::from(matches!(self.peek(1), Some('+' | '-')));
            if self.peek(1 + sign).is_some_and(|c| c.is_ascii_digit()) {
                float = true;
                self.at += 1 + sign;
                digits(self);
            }
        }
        if float {
            return Tok::Float(self.chars[start..self.at].iter().collect());
        }
        self.integer(start)
    }

    fn integer(&mut self, start: usize) -> Tok {
        let text: String = self.chars[start..self.at].iter().collect();
        if matches!(self.peek(0), Some('u' | 'U')) {
            self.at += 1;
            return Tok::Uint(text);
        }
        Tok::Int(text)
    }

    /// A string or bytes literal: None if there is none here, Some(None) if it does not end or is malformed.
    fn string(&mut self) -> Option<Option<Tok>> {
        let mut ahead = 0;
        let bytes = matches!(self.peek(0), Some('b' | 'B'));
        ahead += usize::from(bytes);
        let raw = matches!(self.peek(ahead), Some('r' | 'R'));
        ahead += usize::from(raw);
        let quote = self.peek(ahead).filter(|c| matches!(c, '"' | '\''))?;
        let triple = self.peek(ahead + 1) == Some(quote) && self.peek(ahead + 2) == Some(quote);
        let start = self.at;
        let mut i = self.at + ahead + if triple { 3 } else { 1 };
        let body_start = i;
        loop {
            let Some(&c) = self.chars.get(i) else {
                self.at = self.chars.len();
                return Some(None);
            };
            let ends = c == quote
                && (!triple || (self.chars.get(i + 1) == Some(&quote) && self.chars.get(i + 2) == Some(&quote)));
            if ends {
                break;
            }
            if !triple && (c == '\n' || c == '\r') {
                self.at = i;
                return Some(None);
            }
            i += if c == '\\' && !raw { 2 } else { 1 };
        }
        let body: Vec<char> = self.chars[body_start..i].to_vec();
        self.at = i + if triple { 3 } else { 1 };
        let done = if bytes {
            unescape(&body, raw, true).map(Tok::Bytes)
        } else {
            unescape(&body, raw, false).and_then(|b| String::from_utf8(b).ok()).map(Tok::Str)
        };
        Some(Some(done.unwrap_or_else(|| {
            self.errors.push((start, "unable to unescape string".into()));
            Tok::Str(String::new())
        })))
    }
}

fn escape(text: &str) -> String {
    text.replace('\n', "\\n").replace('\t', "\\t").replace('\r', "\\r")
}

/// What a literal's body stands for. In bytes, `\x` and octal escapes are bytes; in strings, code points.
fn unescape(body: &[char], raw: bool, bytes: bool) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(body.len());
    let mut push = |c: char, as_byte: bool| {
        if as_byte {
            out.push(u8::try_from(u32::from(c)).unwrap_or(b'?'));
        } else {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    };
    let mut i = 0;
    while i < body.len() {
        let c = body[i];
        i += 1;
        if c == '\r' {
            // Line ends are normalised.
            if body.get(i) == Some(&'\n') {
                i += 1;
            }
            push('\n', false);
            continue;
        }
        if c != '\\' || raw {
            push(c, false);
            continue;
        }
        let kind = *body.get(i)?;
        i += 1;
        let hex = match kind {
            'x' | 'X' => 2,
            'u' if !bytes => 4,
            'U' if !bytes => 8,
            _ => 0,
        };
        if hex > 0 {
            let digits: String = body.get(i..i + hex)?.iter().collect();
            i += hex;
            push(char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?, bytes);
            continue;
        }
        match kind {
            'a' => push('\u{7}', false),
            'b' => push('\u{8}', false),
            'f' => push('\u{c}', false),
            'n' => push('\n', false),
            'r' => push('\r', false),
            't' => push('\t', false),
            'v' => push('\u{b}', false),
            '\\' | '\'' | '"' | '`' | '?' => push(kind, false),
            '0'..='3' => {
                let digits: String = body.get(i - 1..i + 2)?.iter().collect();
                i += 2;
                push(char::from_u32(u32::from_str_radix(&digits, 8).ok()?)?, bytes);
            }
            _ => return None,
        }
    }
    Some(out)
}
