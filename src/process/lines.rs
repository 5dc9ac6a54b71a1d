//! Output of a program as lines: cut at `\r` and `\n`, progress bars told as they are drawn, the last ones kept.

use std::collections::VecDeque;

/// How many lines of standard error are kept for a report.
pub const TAIL_LINES: usize = 60;

/// A line longer than this is cut into several: a program that never ends a line must not fill memory.
const LONGEST_LINE: usize = 64 * 1024;

/// Output as it comes: every line is passed on once, the last ones are kept.
#[derive(Default)]
pub(super) struct Reader {
    lines: Lines,
    tail: Tail,
}

impl Reader {
    /// Takes more output.
    pub fn push(&mut self, bytes: &[u8], on_line: &mut dyn FnMut(&str)) {
        let Self { lines, tail } = self;
        lines.push(bytes, &mut |line, told| tell(tail, line, told, on_line));
    }

    /// Takes what stands there as the last line, and gives back the last ones, oldest first.
    pub fn finish(mut self, on_line: &mut dyn FnMut(&str)) -> Vec<String> {
        let Self { lines, tail } = &mut self;
        lines.finish(&mut |line, told| tell(tail, line, told, on_line));
        self.tail.lines.into()
    }
}

fn tell(tail: &mut Tail, line: &str, told: Told, on_line: &mut dyn FnMut(&str)) {
    if let Told::Whole { redrawn, .. } = told {
        tail.push(line, redrawn);
    }
    if !matches!(told, Told::Whole { again: true, .. }) {
        on_line(line);
    }
}

/// Bytes cut into lines at `\r` and `\n`.
#[derive(Default)]
struct Lines {
    partial: Vec<u8>,
    /// Whether the line in the making stands after a `\r`: a progress bar, which ends its line only when it draws the
    /// next one.
    is_drawn: bool,
    /// How many bytes of it were shown already.
    n_shown: usize,
}

/// What is told of a line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    /// It is whole.
    Whole {
        /// It ended in `\r`: the next one is drawn over it.
        redrawn: bool,
        /// The same text was told before as a drawing.
        again: bool,
    },
    /// It is a progress bar as it stands; its end is still to come.
    Drawing,
}

impl Lines {
    /// Tells every line that the bytes end, then what is drawn at the end of them.
    fn push(&mut self, bytes: &[u8], tell: &mut dyn FnMut(&str, Told)) {
        for &byte in bytes {
            if byte == b'\r' || byte == b'\n' {
                self.end(byte == b'\r', tell);
                self.is_drawn = byte == b'\r';
            } else {
                self.partial.push(byte);
                if self.partial.len() >= LONGEST_LINE {
                    self.end(false, tell);
                }
            }
        }
        if self.is_drawn && self.partial.len() > self.n_shown {
            self.n_shown = self.partial.len();
            tell(&String::from_utf8_lossy(&self.partial), Told::Drawing);
        }
    }

    fn finish(&mut self, tell: &mut dyn FnMut(&str, Told)) {
        if !self.partial.is_empty() {
            self.end(false, tell);
        }
    }

    fn end(&mut self, redrawn: bool, tell: &mut dyn FnMut(&str, Told)) {
        let again = self.n_shown > 0 && self.n_shown == self.partial.len();
        tell(&String::from_utf8_lossy(&self.partial), Told::Whole { redrawn, again });
        self.partial.clear();
        self.n_shown = 0;
    }
}

/// The last lines, as a terminal would show them.
#[derive(Default)]
struct Tail {
    lines: VecDeque<String>,
    last_is_redrawn: bool,
}

impl Tail {
    fn push(&mut self, line: &str, redrawn: bool) {
        if line.trim().is_empty() {
            // Nothing is drawn over by nothing; a newline makes what stands there final.
            self.last_is_redrawn &= redrawn;
            return;
        }
        if self.last_is_redrawn {
            self.lines.pop_back();
        } else if self.lines.len() == TAIL_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line.to_owned());
        self.last_is_redrawn = redrawn;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&str]) -> (Vec<String>, Vec<String>) {
        let (mut reader, mut seen) = (Reader::default(), Vec::new());
        chunks.iter().for_each(|chunk| reader.push(chunk.as_bytes(), &mut |line| seen.push(line.to_owned())));
        let tail = reader.finish(&mut |line| seen.push(line.to_owned()));
        (seen, tail)
    }

    #[test]
    fn a_progress_bar_is_told_as_soon_as_it_is_drawn_and_only_once() {
        let (seen, tail) = lines(&["start\n\r 0%", "\r 50", "%\n", "end"]);
        assert_eq!(seen, ["start", "", " 0%", " 50", " 50%", "end"]);
        assert_eq!(tail, ["start", " 50%", "end"]);
    }

    #[test]
    fn lines_end_at_carriage_returns_and_newlines_wherever_the_chunks_do() {
        let (seen, tail) = lines(&["a\n", "\r 0", "%\r 50%\r 100%\nError: x"]);
        assert_eq!(seen, ["a", "", " 0", " 0%", " 50%", " 100%", "Error: x"]);
        assert_eq!(tail, ["a", " 100%", "Error: x"]);
    }

    #[test]
    fn the_tail_is_bounded() {
        let text: String = (0..1000).map(|n| format!("line {n}\n")).collect();
        let (_, tail) = lines(&[&text]);
        assert_eq!((tail.len(), tail[0].as_str(), tail[TAIL_LINES - 1].as_str()), (TAIL_LINES, "line 940", "line 999"));
    }
}
