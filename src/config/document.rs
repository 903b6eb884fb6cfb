//! Text → TOML, one table header after the other.
//!
//! The file is cut at its headers, and each piece parsed by itself: a document of 10,000 peers as one tree
//! takes 57 MB, as pieces next to nothing. What TOML says about tables of one name is checked by the caller.

use std::ops::Range;

use toml_edit::{Document, Table};
use toml_parser::{Source, lexer::TokenKind};

use super::report::{Flaw, Report, Subject};

/// Byte ranges of the pieces: what stands before the first header, then each header with what follows it.
pub(super) fn sections(text: &str) -> Vec<Range<usize>> {
    let mut starts = vec![0];
    let mut depth = 0usize; // open brackets: an array may hold lines that begin with '['
    let mut line_is_blank = true;
    let mut in_header = false;
    for token in Source::new(text).lex() {
        match token.kind() {
            TokenKind::Newline => (line_is_blank, in_header) = (true, false),
            TokenKind::Whitespace => {}
            TokenKind::LeftSquareBracket if line_is_blank && depth == 0 => {
                starts.push(token.span().start());
                (line_is_blank, in_header) = (false, true);
            }
            kind => {
                line_is_blank = false;
                match kind {
                    _ if in_header => {}
                    TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => depth += 1,
                    TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket => {
                        depth = depth.saturating_sub(1);
                    }
                    _ => {}
                }
            }
        }
    }
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts.iter().copied().zip(ends).map(|(start, end)| start..end).collect()
}

/// One piece as a tree, with spans relative to the piece; `None`: no TOML, and the report says where and why.
pub(super) fn parse_section(text: &str, range: Range<usize>, report: &mut Report<'_>) -> Option<Table> {
    match Document::parse(&text[range.clone()]) {
        Ok(document) => Some(document.into_table()),
        Err(error) => {
            let at = (range.start + error.span().map_or(0, |span| span.start)).min(text.len());
            let column = text.get(report.line_start(at)..at).map_or(1, |before| before.chars().count() + 1);
            let message = error.message().trim().replace('\n', ", ");
            let found = format!("bad syntax at column {column}: {message}");
            let remedy = "write one key = value a line, texts in double quotes, lists in [ ]";
            report.refuse(at, &Subject::File, "TOML", Flaw::new(found, remedy));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &str) -> Vec<&str> {
        sections(text).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn a_file_is_cut_at_each_header_and_nowhere_else() {
        let text =
            "a = 1\n[b]\nc = [\n  [1],\n[2],\n]\nd = \"\"\"\n[e]\n\"\"\" # [f]\n  [[g]]\n# [h]\n[[g]]\n";
        let expected = [
            "a = 1\n",
            "[b]\nc = [\n  [1],\n[2],\n]\nd = \"\"\"\n[e]\n\"\"\" # [f]\n  ",
            "[[g]]\n# [h]\n",
            "[[g]]\n",
        ];
        assert_eq!(pieces(text), expected);
    }

    #[test]
    fn a_broken_header_does_not_swallow_the_next() {
        assert_eq!(pieces("[[a]\nb = 1\n[c]\n"), ["", "[[a]\nb = 1\n", "[c]\n"]);
    }
}
