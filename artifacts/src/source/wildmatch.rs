//! Matches one pattern of an ignore file as git does. It must never answer
//! otherwise than git, and never take longer than a person would wait: a
//! pattern that needs too many steps matches nothing.

/// More than any pattern needs that a person wrote.
const STEPS: u32 = 200_000;

/// How git's patterns are read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Flags {
    /// `*` and `?` do not match `/`.
    pub(super) path: bool,
    /// Case does not matter, for ASCII.
    pub(super) fold: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Yes,
    No,
    /// Nothing further right can match.
    Never,
    /// Only a `**` further left can still match.
    ToDoubleStar,
}

struct Matcher<'a> {
    pattern: &'a [u8],
    text: &'a [u8],
    flags: Flags,
    steps: u32,
}

/// Whether all of `text` matches `pattern`.
pub(super) fn matches(pattern: &[u8], text: &[u8], flags: Flags) -> bool {
    let mut matcher = Matcher { pattern, text, flags, steps: 0 };
    matcher.run(0, 0) == Answer::Yes
}

fn special(byte: u8) -> bool {
    matches!(byte, b'*' | b'?' | b'[' | b'\\')
}

/// How many bytes at the beginning of a pattern stand for themselves.
pub(super) fn literal_len(pattern: &[u8]) -> usize {
    pattern.iter().position(|byte| special(*byte)).unwrap_or(pattern.len())
}

impl Matcher<'_> {
    /// 0 ends both texts: neither holds a NUL.
    fn p(&self, at: usize) -> u8 {
        self.pattern.get(at).copied().unwrap_or(0)
    }

    fn t(&self, at: usize) -> u8 {
        self.text.get(at).copied().unwrap_or(0)
    }

    fn folded(&self, byte: u8) -> u8 {
        if self.flags.fold { byte.to_ascii_lowercase() } else { byte }
    }

    fn run(&mut self, mut p: usize, mut t: usize) -> Answer {
        while p < self.pattern.len() {
            self.steps += 1;
            if self.steps > STEPS {
                return Answer::Never;
            }
            let mut wanted = self.folded(self.p(p));
            let found = self.folded(self.t(t));
            if found == 0 && wanted != b'*' {
                return Answer::Never;
            }
            match wanted {
                b'?' => {
                    if self.flags.path && found == b'/' {
                        return Answer::No;
                    }
                }
                b'*' => {
                    if let Some(answer) = self.star(&mut p, &mut t) {
                        return answer;
                    }
                }
                b'[' => match self.class(&mut p, found) {
                    Err(answer) => return answer,
                    Ok(within) if !within || self.flags.path && found == b'/' => return Answer::No,
                    Ok(_) => {}
                },
                _ => {
                    if wanted == b'\\' {
                        p += 1;
                        wanted = self.p(p);
                    }
                    if found != wanted {
                        return Answer::No;
                    }
                }
            }
            p += 1;
            t += 1;
        }
        if t < self.text.len() { Answer::No } else { Answer::Yes }
    }

    /// What follows one or several stars; `None` where the pattern goes on
    /// behind a slash that both now stand at.
    fn star(&mut self, p: &mut usize, t: &mut usize) -> Option<Answer> {
        let first = *p;
        *p += 1;
        let mut slashes = !self.flags.path;
        if self.p(*p) == b'*' {
            while self.p(*p) == b'*' {
                *p += 1;
            }
            let before = first == 0 || self.p(first - 1) == b'/';
            let next = (self.p(*p), self.p(*p + 1));
            if self.flags.path && before && (next.0 == 0 || next.0 == b'/' || next == (b'\\', b'/')) {
                // `**/x` matches `x` too.
                if next.0 == b'/' && self.run(*p + 1, *t) == Answer::Yes {
                    return Some(Answer::Yes);
                }
                slashes = true;
            }
        }
        let rest = self.text.get(*t..).unwrap_or_default();
        let slash = rest.iter().position(|byte| *byte == b'/');
        if self.p(*p) == 0 {
            let blocked = !slashes && slash.is_some();
            return Some(if blocked { Answer::ToDoubleStar } else { Answer::Yes });
        }
        if !slashes && self.p(*p) == b'/' {
            let Some(slash) = slash else { return Some(Answer::Never) };
            *t += slash;
            return None;
        }
        Some(self.try_each(*p, *t, slashes))
    }

    /// Tries the rest of the pattern at every place that the star can reach.
    fn try_each(&mut self, p: usize, mut t: usize, slashes: bool) -> Answer {
        while t < self.text.len() {
            if !special(self.p(p)) {
                let wanted = self.folded(self.p(p));
                let reach = |byte: u8| slashes || byte != b'/';
                while t < self.text.len() && reach(self.t(t)) && self.folded(self.t(t)) != wanted {
                    t += 1;
                }
                if self.folded(self.t(t)) != wanted {
                    return if slashes { Answer::Never } else { Answer::ToDoubleStar };
                }
            }
            match self.run(p, t) {
                Answer::No if !slashes && self.t(t) == b'/' => return Answer::ToDoubleStar,
                Answer::No => {}
                Answer::ToDoubleStar if slashes => {}
                answer => return answer,
            }
            t += 1;
        }
        Answer::Never
    }

    /// Whether a class holds `found`; `p` is left on its `]`.
    fn class(&mut self, p: &mut usize, found: u8) -> Result<bool, Answer> {
        *p += 1;
        let negated = matches!(self.p(*p), b'!' | b'^');
        if negated {
            *p += 1;
        }
        let (mut previous, mut within) = (0_u8, false);
        loop {
            let mut current = self.p(*p);
            if current == 0 {
                return Err(Answer::Never);
            }
            let next = self.p(*p + 1);
            if current == b'\\' {
                *p += 1;
                current = self.p(*p);
                if current == 0 {
                    return Err(Answer::Never);
                }
                within |= found == current;
            } else if current == b'-' && previous != 0 && next != 0 && next != b']' {
                *p += 1;
                if self.p(*p) == b'\\' {
                    *p += 1;
                }
                let last = self.p(*p);
                if last == 0 {
                    return Err(Answer::Never);
                }
                within |= (previous..=last).contains(&found);
                let upper = found.to_ascii_uppercase();
                within |= self.flags.fold && (previous..=last).contains(&upper);
                current = 0;
            } else if current == b'[' && next == b':' {
                let begin = *p + 2;
                let rest = self.pattern.get(begin..).unwrap_or_default();
                let end = rest.iter().position(|byte| *byte == b']').ok_or(Answer::Never)?;
                if let Some(name) = rest[..end].strip_suffix(b":") {
                    within |= self.named(name, found).ok_or(Answer::Never)?;
                    *p = begin + end;
                    current = 0;
                } else {
                    within |= found == b'[';
                }
            } else {
                within |= found == current;
            }
            previous = current;
            *p += 1;
            if self.p(*p) == b']' {
                return Ok(within != negated);
            }
        }
    }

    fn named(&self, name: &[u8], byte: u8) -> Option<bool> {
        Some(match name {
            b"alnum" => byte.is_ascii_alphanumeric(),
            b"alpha" => byte.is_ascii_alphabetic(),
            b"blank" => matches!(byte, b' ' | b'\t'),
            b"cntrl" => byte.is_ascii_control(),
            b"digit" => byte.is_ascii_digit(),
            b"graph" => byte.is_ascii_graphic(),
            b"lower" => byte.is_ascii_lowercase(),
            b"print" => byte.is_ascii_graphic() || byte == b' ',
            b"punct" => byte.is_ascii_punctuation(),
            b"space" => matches!(byte, b' ' | b'\t'..=b'\r'),
            b"upper" => byte.is_ascii_uppercase() || self.flags.fold && byte.is_ascii_lowercase(),
            b"xdigit" => byte.is_ascii_hexdigit(),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pattern, text, whether it matches as a path and as a name: git's own
    /// answers.
    const CASES: [(&str, &str, bool, bool); 34] = [
        ("foo", "foo", true, true),
        ("???", "foo", true, true),
        ("*", "foo", true, true),
        ("*ob*a*r*", "foobar", true, true),
        ("\\*", "*", true, true),
        ("foo\\*bar", "foo*bar", true, true),
        ("*[al]?", "ball", true, true),
        ("[ten]", "ten", false, false),
        ("**[!te]", "ten", true, true),
        ("t[a-g]n", "ten", true, true),
        ("t[!a-g]n", "ten", false, false),
        ("a[]]b", "a]b", true, true),
        ("a[]-]b", "a-b", true, true),
        ("]", "]", true, true),
        ("foo*bar", "foo/baz/bar", false, true),
        ("foo**bar", "foo/baz/bar", false, true),
        ("foo/**/bar", "foo/bar", true, false),
        ("foo/**/bar", "foo/b/a/z/bar", true, true),
        ("foo/**/**/bar", "foo/b/a/z/bar", true, true),
        ("foo?bar", "foo/bar", false, true),
        ("**/foo", "foo", true, false),
        ("**/foo", "bar/baz/foo", true, true),
        ("**/bar*", "deep/foo/bar/baz", false, true),
        ("**/bar/*", "deep/foo/bar", false, false),
        ("*/bar/**", "foo/bar/baz/x", true, true),
        ("[[:alpha:]][[:digit:]][[:upper:]]", "a1B", true, true),
        ("[[:digit:][:upper:][:space:]]", ".", false, false),
        ("[[:nonsense:]]", "a", false, false),
        ("[a-c]b*", "abc", true, true),
        ("{a,b}", "a", false, false),
        ("{a,b}", "{a,b}", true, true),
        ("a\\", "a", false, false),
        ("[", "[", false, false),
        ("", "", true, true),
    ];

    #[test]
    fn patterns_match_what_git_says_they_match() {
        for (pattern, text, path, name) in CASES {
            let ask = |path| matches(pattern.as_bytes(), text.as_bytes(), Flags { path, fold: false });
            assert_eq!((ask(true), ask(false)), (path, name), "{pattern} on {text}");
        }
        let fold = Flags { path: true, fold: true };
        assert!(matches(b"F[A-F]O", b"fao", fold) && matches(b"[[:upper:]]", b"a", fold));
    }

    #[test]
    fn a_pattern_made_to_take_for_ever_ends() {
        let pattern = b"**/*a*".repeat(40);
        assert!(!matches(&pattern, &b"aaaa/".repeat(200), Flags { path: true, fold: false }));
    }
}
