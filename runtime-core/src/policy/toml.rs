//! The part of TOML that settings are written in: tables, and keys whose values are strings, booleans, whole numbers
//! and lists of strings. What goes beyond is refused by its line.
//!
//! Our own, because the shim reads it on every create: a whole TOML library is several times what reads it here, in
//! code that stays in memory as long as a pod.

use std::iter::Peekable;
use std::str::Chars;

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Value {
    Text(String),
    Flag(bool),
    Number(i64),
    List(Vec<String>),
}

/// One key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// With the names of its tables: `table.key`.
    pub key: String,
    /// What it is set to.
    pub value: Value,
    /// Where it is, counted from one.
    pub line: usize,
}

/// Why a text is not understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    #[error("line {line}: {expected} is expected, and {found} is there")]
    Syntax {
        line: usize,
        expected: &'static str,
        found: String,
    },
    #[error("line {line}: {key} is there twice")]
    Twice { line: usize, key: String },
}

/// All entries of `text`, in its order.
///
/// # Errors
/// What is not in the subset, by line; a key that is there twice.
pub fn parse(text: &str) -> Result<Vec<Entry>, Error> {
    let mut reader = Reader {
        rest: text.chars().peekable(),
        line: 1,
    };
    let mut table = String::new();
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        reader.skip_blank_lines()?;
        let line = reader.line;
        match reader.rest.peek() {
            None => return Ok(entries),
            Some('[') => {
                reader.rest.next();
                table = reader.key()? + ".";
                reader.expect(']', "`]` after a table's name")?;
            }
            Some(_) => {
                let key = table.clone() + &reader.key()?;
                reader.expect('=', "`=` after a key")?;
                let value = reader.value()?;
                if entries.iter().any(|entry| entry.key == key) {
                    return Err(Error::Twice { line, key });
                }
                entries.push(Entry { key, value, line });
            }
        }
        reader.end_of_line()?;
    }
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    line: usize,
}

impl Reader<'_> {
    fn wrong<T>(&mut self, expected: &'static str) -> Result<T, Error> {
        let found: String = self.rest.clone().take_while(|c| *c != '\n').take(40).collect();
        let found = match (found.as_str(), self.rest.peek()) {
            ("", None) => "the end".to_owned(),
            ("", Some(_)) => "the end of the line".to_owned(),
            _ => format!("{found:?}"),
        };
        Err(Error::Syntax {
            line: self.line,
            expected,
            found,
        })
    }

    fn skip_spaces(&mut self) {
        while self.rest.next_if(|c| matches!(c, ' ' | '\t')).is_some() {}
    }

    fn skip_comment(&mut self) {
        if self.rest.peek() == Some(&'#') {
            while self.rest.next_if(|c| *c != '\n').is_some() {}
        }
    }

    fn newline(&mut self) -> Result<bool, Error> {
        if self.rest.next_if_eq(&'\r').is_some() && self.rest.peek() != Some(&'\n') {
            return self.wrong("a newline after a carriage return");
        }
        let is_one = self.rest.next_if_eq(&'\n').is_some();
        self.line += usize::from(is_one);
        Ok(is_one)
    }

    fn skip_blank_lines(&mut self) -> Result<(), Error> {
        loop {
            self.skip_spaces();
            self.skip_comment();
            if !self.newline()? {
                return Ok(());
            }
        }
    }

    fn end_of_line(&mut self) -> Result<(), Error> {
        self.skip_spaces();
        self.skip_comment();
        if self.rest.peek().is_none() || self.newline()? {
            return Ok(());
        }
        self.wrong("the end of the line")
    }

    fn expect(&mut self, character: char, expected: &'static str) -> Result<(), Error> {
        self.skip_spaces();
        match self.rest.next_if_eq(&character) {
            Some(_) => Ok(()),
            None => self.wrong(expected),
        }
    }

    fn key(&mut self) -> Result<String, Error> {
        let mut key = String::new();
        loop {
            self.skip_spaces();
            match self.rest.peek() {
                Some('"' | '\'') => key.push_str(&self.string()?),
                _ => {
                    let before = key.len();
                    while let Some(c) = self
                        .rest
                        .next_if(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
                    {
                        key.push(c);
                    }
                    if key.len() == before {
                        return self.wrong("a key");
                    }
                }
            }
            self.skip_spaces();
            if self.rest.next_if_eq(&'.').is_none() {
                return Ok(key);
            }
            key.push('.');
        }
    }

    fn value(&mut self) -> Result<Value, Error> {
        self.skip_spaces();
        match self.rest.peek() {
            Some('"' | '\'') => self.string().map(Value::Text),
            Some('[') => self.list().map(Value::List),
            _ => {
                let start = self.rest.clone();
                let mut word = String::new();
                let is_of_word = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+' | '.' | ':');
                while let Some(c) = self.rest.next_if(is_of_word) {
                    word.push(c);
                }
                match word.as_str() {
                    "true" => Ok(Value::Flag(true)),
                    "false" => Ok(Value::Flag(false)),
                    number => match number.parse() {
                        Ok(number) => Ok(Value::Number(number)),
                        Err(_) => {
                            self.rest = start;
                            self.wrong("a string, a boolean, a whole number or a list of strings")
                        }
                    },
                }
            }
        }
    }

    fn list(&mut self) -> Result<Vec<String>, Error> {
        self.rest.next();
        let mut list = Vec::new();
        loop {
            self.skip_blank_lines()?;
            match self.rest.peek() {
                Some(']') => {
                    self.rest.next();
                    return Ok(list);
                }
                Some('"' | '\'') => list.push(self.string()?),
                _ => return self.wrong("a string of a list, or `]`"),
            }
            self.skip_blank_lines()?;
            if self.rest.next_if_eq(&',').is_none() && self.rest.peek() != Some(&']') {
                return self.wrong("`,` or `]` in a list");
            }
        }
    }

    /// A string on one line: with escapes between `"`, as it stands between `'`.
    fn string(&mut self) -> Result<String, Error> {
        let quote = self.rest.next().unwrap_or('"');
        let mut text = String::new();
        loop {
            match self.rest.next_if(|c| *c != '\n') {
                None => return self.wrong("the end of a string"),
                Some(c) if c == quote => return Ok(text),
                Some('\\') if quote == '"' => {
                    let escaped = match self.rest.peek() {
                        Some('"') => '"',
                        Some('\\') => '\\',
                        Some('n') => '\n',
                        Some('t') => '\t',
                        _ => return self.wrong("one of the escapes \\\", \\\\, \\n and \\t"),
                    };
                    self.rest.next();
                    text.push(escaped);
                }
                Some(c) => text.push(c),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Value {
        parse(&format!("key = {text}\n")).unwrap().remove(0).value
    }

    fn error(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn every_kind_of_value_is_read() {
        assert_eq!(value("\"a \\\"b\\\" # c\""), Value::Text("a \"b\" # c".into()));
        assert_eq!(value("'C:\\x'"), Value::Text("C:\\x".into()));
        assert_eq!(value("true # yes"), Value::Flag(true));
        assert_eq!(value("-12"), Value::Number(-12));
        assert_eq!(value("[]"), Value::List(vec![]));
        assert_eq!(
            value("[ # why\n 'a',\n \"b\", ]"),
            Value::List(vec!["a".into(), "b".into()])
        );
    }

    #[test]
    fn tables_and_dotted_keys_name_the_same_settings() {
        let entries = parse("a = 1\r\n[t]\nb.c = 'x'\n[ t . \"u\" ]\nd=true").unwrap();
        let keys: Vec<_> = entries.iter().map(|entry| (entry.key.as_str(), entry.line)).collect();
        assert_eq!(keys, [("a", 1), ("t.b.c", 3), ("t.u.d", 5)]);
    }

    #[test]
    fn what_is_not_understood_is_refused_by_its_line() {
        for (text, line, found) in [
            ("a = 1\nb = 1.5\n", 2, "\"1.5\""),
            ("a = {b = 1}", 1, "\"{b = 1}\""),
            ("[[a]]", 1, "\"[a]]\""),
            ("a = [1]", 1, "\"1]\""),
            ("a = 'x' b", 1, "\"b\""),
            ("a\n", 1, "the end of the line"),
            ("a =", 1, "the end"),
            ("a = 'x\n'", 1, "the end of the line"),
            ("a = [\n'x' 'y']", 2, "\"'y']\""),
            ("a = \"\\u0041\"", 1, "\"u0041"),
            ("= 1", 1, "\"= 1\""),
        ] {
            let error = error(text);
            assert!(error.starts_with(&format!("line {line}: ")), "{text:?}: {error}");
            assert!(error.contains(found), "{text:?}: {error}");
        }
        assert_eq!(error("a.b = 1\n[a]\nb = 2\n"), "line 3: a.b is there twice");
    }
}
