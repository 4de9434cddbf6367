//! Links in what is proxied: those to the same host are made to lead through the proxy (upstream `proxy.Transport`).

/// Which attributes of which tags are links.
const LINKS: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["formaction", "src", "usemap"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// Tags whose content is text, whatever it looks like.
const TEXT: &[&str] =
    &["iframe", "noembed", "noframes", "noscript", "plaintext", "script", "style", "textarea", "title", "xmp"];

/// Where the page came from and how the client got there.
#[derive(Clone, Debug)]
pub struct Rewrite {
    /// The path of the proxy, without a slash at the end.
    pub prefix: String,
    /// `host:port` of the backend.
    pub source: String,
    /// The Host header of the client's request.
    pub requested: String,
}

impl Rewrite {
    /// A link as the client must follow it; None when it is good as it is.
    pub fn link(&self, link: &str) -> Option<String> {
        let path_start = link.find("//").filter(|at| *at == 0 || link[..*at].ends_with(':'));
        let (scheme, rest) = match path_start {
            Some(at) if !link[..at].contains(['/', '?', '#']) => (&link[..at], &link[at + 2..]),
            _ => return self.path(link),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(end);
        if host == self.requested {
            return Some(format!("{scheme}//{host}{}", self.path(path)?));
        }
        let same = host.is_empty() || host == self.source;
        same.then(|| self.path(path).unwrap_or_else(|| path.to_string())).filter(|l| l.starts_with('/'))
    }

    fn path(&self, path: &str) -> Option<String> {
        (path.starts_with('/') && !path.starts_with(&self.prefix)).then(|| format!("{}{path}", self.prefix))
    }

    /// The page with its links rewritten. What is not understood stays as it is.
    pub fn page(&self, html: &str) -> String {
        let mut out = String::with_capacity(html.len() + 256);
        let mut rest = html;
        while let Some(at) = rest.find('<') {
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            if rest.starts_with("<!--") {
                let end = rest.find("-->").map_or(rest.len(), |end| end + 3);
                out.push_str(&rest[..end]);
                rest = &rest[end..];
                continue;
            }
            let name_end = rest[1..].find(|c: char| !c.is_ascii_alphanumeric()).map_or(rest.len(), |e| e + 1);
            let name = rest[1..name_end].to_ascii_lowercase();
            if name.is_empty() {
                out.push('<');
                rest = &rest[1..];
                continue;
            }
            out.push_str(&rest[..name_end]);
            rest = self.attributes(&name, &rest[name_end..], &mut out);
            if TEXT.contains(&name.as_str()) {
                let end = end_of_text(rest, &name);
                out.push_str(&rest[..end]);
                rest = &rest[end..];
            }
        }
        out.push_str(rest);
        out
    }

    /// Copies a tag's attributes up to its end; answers what follows.
    fn attributes<'a>(&self, tag: &str, text: &'a str, out: &mut String) -> &'a str {
        let links = LINKS.iter().find(|(name, _)| *name == tag).map_or(&[][..], |(_, links)| links);
        let mut rest = text;
        loop {
            let start = rest.find(|c: char| !c.is_ascii_whitespace() && c != '/').unwrap_or(rest.len());
            out.push_str(&rest[..start]);
            rest = &rest[start..];
            match rest.chars().next() {
                None => return "",
                Some('>') => {
                    out.push('>');
                    return &rest[1..];
                }
                Some(_) => {}
            }
            // A name, though it be odd, is at least one character long.
            let first = rest.chars().next().map_or(1, char::len_utf8);
            let ends = |c: char| c.is_ascii_whitespace() || matches!(c, '=' | '>' | '/');
            let end = rest[first..].find(ends).map_or(rest.len(), |e| e + first);
            let name = rest[..end].to_ascii_lowercase();
            out.push_str(&rest[..end]);
            rest = &rest[end..];
            let equals = rest.len() - rest.trim_ascii_start().len();
            if !rest[equals..].starts_with('=') {
                continue;
            }
            let after = &rest[equals + 1..];
            let space = after.len() - after.trim_ascii_start().len();
            out.push_str(&rest[..equals + 1 + space]);
            rest = &after[space..];
            let (quote, value, next) = value(rest);
            let changed = links.contains(&name.as_str()).then(|| self.link(value)).flatten();
            out.push_str(quote);
            out.push_str(changed.as_deref().unwrap_or(value));
            // The closing quote, when there is one.
            out.push_str(&rest[quote.len() + value.len()..rest.len() - next.len()]);
            rest = next;
        }
    }
}

/// The opening quote, the value, and what follows the closing quote.
fn value(text: &str) -> (&str, &str, &str) {
    let quote = &text[..usize::from(text.starts_with(['"', '\'']))];
    if quote.is_empty() {
        let end = text.find(|c: char| c.is_ascii_whitespace() || c == '>').unwrap_or(text.len());
        return ("", &text[..end], &text[end..]);
    }
    match text[1..].find(quote) {
        Some(end) => (quote, &text[1..=end], &text[end + 2..]),
        None => (quote, &text[1..], ""),
    }
}

fn end_of_text(text: &str, tag: &str) -> usize {
    let mut from = 0;
    while let Some(at) = text[from..].find("</") {
        let name = from + at + 2;
        if text.get(name..name + tag.len()).is_some_and(|t| t.eq_ignore_ascii_case(tag)) {
            return from + at;
        }
        from = name;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewrite() -> Rewrite {
        Rewrite { prefix: "/p/proxy".into(), source: "10.0.0.1:80".into(), requested: "api:6443".into() }
    }

    #[test]
    fn links() {
        let cases = [
            ("/a", "/p/proxy/a"),
            ("/a/?x=/b#c", "/p/proxy/a/?x=/b#c"),
            ("a/b", "a/b"),
            ("?a=//b", "?a=//b"),
            ("#a", "#a"),
            ("", ""),
            ("/p/proxy/a", "/p/proxy/a"),
            ("http://10.0.0.1:80/a", "/p/proxy/a"),
            ("//10.0.0.1:80/a", "/p/proxy/a"),
            ("https://api:6443/a", "https://api:6443/p/proxy/a"),
            ("http://elsewhere/a", "http://elsewhere/a"),
            ("mailto:a@b", "mailto:a@b"),
        ];
        for (link, expected) in cases {
            assert_eq!(rewrite().link(link).as_deref().unwrap_or(link), expected, "{link}");
        }
    }

    #[test]
    fn pages() {
        let cases = [
            (r#"<a href="/x">test</a>"#, r#"<a href="/p/proxy/x">test</a>"#),
            ("<IMG alt='<' SRC = '/x'>/y", "<IMG alt='<' SRC = '/p/proxy/x'>/y"),
            ("<link rel=x href=/x><p id=\"/x\">", "<link rel=x href=/p/proxy/x><p id=\"/x\">"),
            (
                "<!-- <a href=\"/x\"> --><script src=\"/x\">'<a href=\"/x\">'</script><a href=/y>",
                "<!-- <a href=\"/x\"> --><script src=\"/p/proxy/x\">'<a href=\"/x\">'</script><a href=/p/proxy/y>",
            ),
            ("a < b <a href=\"/x", "a < b <a href=\"/p/proxy/x"),
            ("<a ==\"/x\" é=/x href>", "<a ==\"/x\" é=/x href>"),
            ("<", "<"),
            ("<a", "<a"),
            ("<script>é</scrip", "<script>é</scrip"),
        ];
        for (page, expected) in cases {
            assert_eq!(rewrite().page(page), expected);
        }
    }
}
