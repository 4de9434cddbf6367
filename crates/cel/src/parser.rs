//! Tokens to a tree, by precedence climbing. Depth and size are bounded; a syntax error ends the parse.

use crate::ast::{Entry, Expr, Id, Kind, Literal, StructField};
use crate::issue::Issue;
use crate::lexer::{Lexer, Tok, Token};
use crate::macros;

/// An expression of more characters is not parsed.
pub(crate) const LONGEST: usize = 100_000;
/// Nesting deeper than this is refused.
const DEEPEST: usize = 100;
/// A tree higher than this is refused: whatever walks it recurses.
const HIGHEST: u32 = 300;

const EXPECTED: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, \
                        BYTES, IDENTIFIER}";

const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// A parsed expression and where its nodes stand.
pub(crate) struct Parsed {
    pub(crate) expr: Expr,
    /// By node: offset in characters.
    pub(crate) offsets: Vec<usize>,
}

pub(crate) struct Parser<'a> {
    source: &'a str,
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    offsets: Vec<usize>,
    /// By node: how high the tree below it is.
    heights: Vec<u32>,
    issues: Vec<Issue>,
    /// How many nodes macros have repeated.
    pub(crate) copied: usize,
    /// Whether there is `cel.bind`.
    pub(crate) bindings: bool,
}

/// The issue was recorded; there is nothing to go on with.
pub(crate) struct Stop;

type Parse<T> = Result<T, Stop>;

pub(crate) fn parse(source: &str, bindings: bool) -> Result<Parsed, Vec<Issue>> {
    let size = source.chars().count();
    if size > LONGEST {
        let message = format!("expression code point size exceeds limit: size: {size}, limit {LONGEST}");
        return Err(vec![Issue::at("", 0, message)]);
    }
    let mut lexer = Lexer::new(source);
    let tokens = lexer.tokens();
    let issues = lexer.errors.iter().map(|(at, message)| Issue::at(source, *at, message.clone())).collect();
    let mut parser =
        Parser { source, tokens, at: 0, depth: 0, offsets: vec![0], heights: vec![0], issues, copied: 0, bindings };
    let expr = parser.whole();
    match expr {
        Ok(expr) if parser.issues.is_empty() => Ok(Parsed { expr, offsets: parser.offsets }),
        _ => Err(parser.issues),
    }
}

impl Parser<'_> {
    fn whole(&mut self) -> Parse<Expr> {
        let parsed = self.expr()?;
        let expr = self.bounded(parsed)?;
        if self.peek() != &Tok::Eof {
            let last = matches!(self.tokens.get(self.at + 1).map(|t| &t.tok), Some(Tok::Eof));
            let how = if last { "extraneous" } else { "mismatched" };
            let text = self.tokens[self.at].text.clone();
            return Err(self.fail_here(format!("Syntax error: {how} input '{text}' expecting <EOF>")));
        }
        Ok(expr)
    }

    fn peek(&self) -> &Tok {
        &self.tokens[self.at].tok
    }

    fn peek_at(&self, ahead: usize) -> &Tok {
        let i = (self.at + ahead).min(self.tokens.len() - 1);
        &self.tokens[i].tok
    }

    fn offset(&self) -> usize {
        self.tokens[self.at].offset
    }

    fn advance(&mut self) -> Token {
        let token = self.tokens[self.at].clone();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        token
    }

    fn eat(&mut self, op: &str) -> bool {
        let found = matches!(self.peek(), Tok::Op(o) if *o == op);
        if found {
            self.advance();
        }
        found
    }

    fn is(&self, op: &str) -> bool {
        matches!(self.peek(), Tok::Op(o) if *o == op)
    }

    fn expect(&mut self, op: &str, expecting: &str) -> Parse<()> {
        if self.eat(op) {
            return Ok(());
        }
        let text = self.tokens[self.at].text.clone();
        Err(self.fail_here(format!("Syntax error: mismatched input '{text}' expecting {expecting}")))
    }

    fn fail_here(&mut self, message: String) -> Stop {
        let at = self.offset();
        self.fail(at, message)
    }

    fn fail(&mut self, at: usize, message: String) -> Stop {
        self.issues.push(Issue::at(self.source, at, message));
        Stop
    }

    /// Records what is wrong with the node `id`.
    pub(crate) fn fail_at(&mut self, id: Id, message: String) -> Stop {
        let at = self.offsets.get(id as usize).copied().unwrap_or(0);
        self.fail(at, message)
    }

    pub(crate) fn id(&mut self, offset: usize) -> Id {
        self.offsets.push(offset);
        self.heights.push(0);
        (self.offsets.len() - 1) as Id
    }

    /// A new node that stands where `id` does.
    pub(crate) fn id_like(&mut self, id: Id) -> Id {
        self.id(self.offsets.get(id as usize).copied().unwrap_or(0))
    }

    fn node(&mut self, offset: usize, kind: Kind) -> Expr {
        let id = self.id(offset);
        self.make(id, kind)
    }

    /// The node `id`, whose height is that of its highest child and one.
    pub(crate) fn make(&mut self, id: Id, kind: Kind) -> Expr {
        let mut height = 0;
        kind.children(&mut |child| height = height.max(self.height(child)));
        if let Some(slot) = self.heights.get_mut(id as usize) {
            *slot = height + 1;
        }
        Expr { id, kind }
    }

    fn height(&self, expr: &Expr) -> u32 {
        self.heights.get(expr.id as usize).copied().unwrap_or(0)
    }

    /// Refuses a tree that has become too high.
    fn bounded(&mut self, expr: Expr) -> Parse<Expr> {
        if self.height(&expr) > HIGHEST {
            return Err(self.too_deep());
        }
        Ok(expr)
    }

    fn too_deep(&mut self) -> Stop {
        self.fail(0, format!("expression recursion limit exceeded: {DEEPEST}"))
    }

    fn call(&mut self, offset: usize, function: &str, args: Vec<Expr>) -> Expr {
        self.node(offset, Kind::Call { function: function.into(), target: None, args })
    }

    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parse<T>) -> Parse<T> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.too_deep());
        }
        let result = parse(self);
        self.depth -= 1;
        result
    }

    fn expr(&mut self) -> Parse<Expr> {
        self.deeper(|p| {
            let condition = p.or()?;
            let offset = p.offset();
            if !p.eat("?") {
                return Ok(condition);
            }
            let id = p.id(offset);
            let yes = p.or()?;
            p.expect(":", "':'")?;
            let no = p.expr()?;
            let call = Kind::Call { function: "_?_:_".into(), target: None, args: vec![condition, yes, no] };
            let made = p.make(id, call);
            p.bounded(made)
        })
    }

    fn or(&mut self) -> Parse<Expr> {
        self.chain("||", "_||_", Self::and)
    }

    fn and(&mut self) -> Parse<Expr> {
        self.chain("&&", "_&&_", Self::relation)
    }

    /// `a && b && c …`, as a balanced tree.
    fn chain(&mut self, op: &str, function: &str, next: fn(&mut Self) -> Parse<Expr>) -> Parse<Expr> {
        let mut terms = vec![Some(next(self)?)];
        let mut ids = Vec::new();
        while self.is(op) {
            let offset = self.offset();
            self.advance();
            terms.push(Some(next(self)?));
            ids.push(self.id(offset));
        }
        if ids.is_empty() {
            return terms[0].take().ok_or(Stop);
        }
        self.balanced(&mut terms, &ids, function, 0, ids.len() - 1).ok_or(Stop)
    }

    fn relation(&mut self) -> Parse<Expr> {
        const OPS: [(&str, &str); 7] =
            [("<", "_<_"), ("<=", "_<=_"), (">", "_>_"), (">=", "_>=_"), ("==", "_==_"), ("!=", "_!=_"), ("in", "@in")];
        self.binary(&OPS, Self::sum)
    }

    fn sum(&mut self) -> Parse<Expr> {
        self.binary(&[("+", "_+_"), ("-", "_-_")], Self::product)
    }

    fn product(&mut self) -> Parse<Expr> {
        self.binary(&[("*", "_*_"), ("/", "_/_"), ("%", "_%_")], Self::unary)
    }

    fn binary(&mut self, ops: &[(&str, &str)], next: fn(&mut Self) -> Parse<Expr>) -> Parse<Expr> {
        let mut left = next(self)?;
        loop {
            let Tok::Op(op) = *self.peek() else { return Ok(left) };
            let Some((_, function)) = ops.iter().find(|(o, _)| *o == op) else { return Ok(left) };
            let offset = self.offset();
            self.advance();
            let id = self.id(offset);
            let right = next(self)?;
            let call = Kind::Call { function: (*function).into(), target: None, args: vec![left, right] };
            let made = self.make(id, call);
            left = self.bounded(made)?;
        }
    }

    fn unary(&mut self) -> Parse<Expr> {
        for (op, function) in [("!", "!_"), ("-", "-_")] {
            if !self.is(op) {
                continue;
            }
            let offset = self.offset();
            let mut count = 0;
            while self.is(op) {
                // The last minus before a number belongs to it.
                if op == "-" && matches!(self.peek_at(1), Tok::Int(_) | Tok::Float(_)) {
                    break;
                }
                self.advance();
                count += 1;
            }
            let operand = self.deeper(Self::member)?;
            return Ok(if count % 2 == 0 { operand } else { self.call(offset, function, vec![operand]) });
        }
        self.member()
    }

    fn member(&mut self) -> Parse<Expr> {
        let mut target = self.primary()?;
        loop {
            target = self.bounded(target)?;
            let offset = self.offset();
            if self.eat(".") {
                target = self.dotted(target, offset)?;
            } else if self.eat("[") {
                let function = if self.eat("?") { "_[?_]" } else { "_[_]" };
                let id = self.id(offset);
                let index = self.expr()?;
                self.expect("]", "']'")?;
                let call = Kind::Call { function: function.into(), target: None, args: vec![target, index] };
                target = self.make(id, call);
            } else {
                return Ok(target);
            }
        }
    }

    fn dotted(&mut self, target: Expr, offset: usize) -> Parse<Expr> {
        let optional = self.eat("?");
        let quoted = matches!(self.peek(), Tok::Quoted(_));
        let field = self.field_name()?;
        if optional {
            let name = self.node(offset, Kind::Literal(Literal::String(field)));
            return Ok(self.call(offset, "_?._", vec![target, name]));
        }
        let open = self.offset();
        if !quoted && self.eat("(") {
            let id = self.id(open);
            let args = self.arguments()?;
            return macros::member_call(self, id, field, target, args);
        }
        Ok(self.node(offset, Kind::Select { operand: Box::new(target), field, test: false }))
    }

    fn field_name(&mut self) -> Parse<String> {
        match self.peek().clone() {
            Tok::Ident(name) if !matches!(name.as_str(), "true" | "false" | "null") => {
                self.advance();
                Ok(name)
            }
            Tok::Quoted(name) => {
                self.advance();
                Ok(name)
            }
            _ => {
                let text = self.tokens[self.at].text.clone();
                Err(self.fail_here(format!("Syntax error: mismatched input '{text}' expecting IDENTIFIER")))
            }
        }
    }

    fn arguments(&mut self) -> Parse<Vec<Expr>> {
        let mut args = Vec::new();
        if self.eat(")") {
            return Ok(args);
        }
        loop {
            args.push(self.expr()?);
            if self.eat(",") {
                continue;
            }
            self.expect(")", "{',', ')'}")?;
            return Ok(args);
        }
    }

    fn primary(&mut self) -> Parse<Expr> {
        let offset = self.offset();
        if self.eat("(") {
            let inner = self.expr()?;
            self.expect(")", "')'")?;
            return Ok(inner);
        }
        if self.eat("[") {
            return self.list(offset);
        }
        if self.eat("{") {
            return self.map(offset);
        }
        if self.is("-") && matches!(self.peek_at(1), Tok::Int(_) | Tok::Float(_)) {
            self.advance();
            return self.number(offset, "-");
        }
        if self.is(".") && matches!(self.peek_at(1), Tok::Ident(_)) {
            self.advance();
            return self.named();
        }
        match self.peek() {
            Tok::Ident(_) => self.named(),
            Tok::Int(_) | Tok::Uint(_) | Tok::Float(_) => self.number(offset, ""),
            Tok::Str(text) => {
                let literal = Literal::String(text.clone());
                self.advance();
                Ok(self.node(offset, Kind::Literal(literal)))
            }
            Tok::Bytes(bytes) => {
                let literal = Literal::Bytes(bytes.clone());
                self.advance();
                Ok(self.node(offset, Kind::Literal(literal)))
            }
            _ => {
                let text = self.tokens[self.at].text.clone();
                Err(self.fail_here(format!("Syntax error: mismatched input '{text}' expecting {EXPECTED}")))
            }
        }
    }

    fn number(&mut self, offset: usize, sign: &str) -> Parse<Expr> {
        let radix = |text: &str| match text.strip_prefix("0x") {
            Some(hex) => (16, hex.to_string()),
            None => (10, text.to_string()),
        };
        let literal = match self.advance().tok {
            Tok::Int(text) => {
                let (radix, digits) = radix(&text);
                i64::from_str_radix(&format!("{sign}{digits}"), radix).map(Literal::Int).map_err(|_| "int")
            }
            Tok::Uint(text) => {
                let (radix, digits) = radix(&text);
                u64::from_str_radix(&digits, radix).map(Literal::Uint).map_err(|_| "uint")
            }
            Tok::Float(text) => match format!("{sign}{text}").parse::<f64>() {
                Ok(f) if f.is_finite() => Ok(Literal::Double(f)),
                _ => Err("double"),
            },
            _ => return Err(Stop),
        };
        match literal {
            Ok(literal) => Ok(self.node(offset, Kind::Literal(literal))),
            Err(kind) => Err(self.fail(offset, format!("invalid {kind} literal"))),
        }
    }

    /// What begins with a name: a literal, a struct, a call, a variable.
    fn named(&mut self) -> Parse<Expr> {
        let offset = self.offset();
        let Tok::Ident(name) = self.advance().tok else { return Err(Stop) };
        match name.as_str() {
            "true" | "false" => return Ok(self.node(offset, Kind::Literal(Literal::Bool(name == "true")))),
            "null" => return Ok(self.node(offset, Kind::Literal(Literal::Null))),
            _ => {}
        }
        if let Some(length) = self.struct_name_follows() {
            return self.structure(name, length);
        }
        if RESERVED.contains(&name.as_str()) {
            return Err(self.fail(offset, format!("reserved identifier: {name}")));
        }
        let open = self.offset();
        if self.eat("(") {
            let id = self.id(open);
            let args = self.arguments()?;
            return macros::global_call(self, id, name, args);
        }
        Ok(self.node(offset, Kind::Ident(name)))
    }

    /// How many `.name` follow before a `{`, if one does.
    fn struct_name_follows(&self) -> Option<usize> {
        let mut ahead = 0;
        loop {
            match (self.peek_at(ahead), self.peek_at(ahead + 1)) {
                (Tok::Op("{"), _) => return Some(ahead / 2),
                (Tok::Op("."), Tok::Ident(_)) => ahead += 2,
                _ => return None,
            }
        }
    }

    fn structure(&mut self, mut name: String, parts: usize) -> Parse<Expr> {
        for _ in 0..parts {
            self.advance();
            name.push('.');
            name.push_str(&self.field_name()?);
        }
        let offset = self.offset();
        self.expect("{", "'{'")?;
        let id = self.id(offset);
        let mut fields = Vec::new();
        while !self.eat("}") {
            let optional = self.eat("?");
            let name = self.field_name()?;
            let offset = self.offset();
            self.expect(":", "':'")?;
            let id = self.id(offset);
            let value = self.expr()?;
            fields.push(StructField { id, name, value, optional });
            self.separator("}")?;
        }
        Ok(self.make(id, Kind::Struct { name, fields }))
    }

    /// A comma, or the closing bracket ahead.
    fn separator(&mut self, close: &str) -> Parse<()> {
        if self.eat(",") || self.is(close) {
            return Ok(());
        }
        let text = self.tokens[self.at].text.clone();
        Err(self.fail_here(format!("Syntax error: mismatched input '{text}' expecting {{'{close}', ','}}")))
    }

    fn list(&mut self, offset: usize) -> Parse<Expr> {
        let id = self.id(offset);
        let mut items = Vec::new();
        while !self.eat("]") {
            let optional = self.eat("?");
            items.push((self.expr()?, optional));
            self.separator("]")?;
        }
        Ok(self.make(id, Kind::List(items)))
    }

    fn map(&mut self, offset: usize) -> Parse<Expr> {
        let id = self.id(offset);
        let mut entries = Vec::new();
        while !self.eat("}") {
            let optional = self.eat("?");
            let key = self.expr()?;
            self.expect(":", "':'")?;
            let value = self.expr()?;
            entries.push(Entry { key, value, optional });
            self.separator("}")?;
        }
        Ok(self.make(id, Kind::Map(entries)))
    }

    /// The terms `low..=high + 1`, joined pairwise so that the tree is no deeper than it must be.
    fn balanced(
        &mut self,
        terms: &mut [Option<Expr>],
        ids: &[Id],
        function: &str,
        low: usize,
        high: usize,
    ) -> Option<Expr> {
        let mid = (low + high).div_ceil(2);
        let left = if mid == low { terms[mid].take()? } else { self.balanced(terms, ids, function, low, mid - 1)? };
        let right =
            if mid == high { terms[mid + 1].take()? } else { self.balanced(terms, ids, function, mid + 1, high)? };
        Some(self.make(ids[mid], Kind::Call { function: function.into(), target: None, args: vec![left, right] }))
    }
}
