//! Compares what a page shows with what a run printed: two runs never have the same ports,
//! process ids and times.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;

/// What differs from run to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// A number that stands for the same thing wherever it appears: a port that the kernel
    /// chose, a process, an inode. Two of them are equal in the run if they are on the page.
    Name,
    /// A time or a duration, the path of a temporary file, an address in memory: any will do.
    Any,
}

/// Group 1 of each is the part that differs.
static VARIABLES: LazyLock<Vec<(Kind, Regex)>> = LazyLock::new(|| {
    [
        // Ports that the kernel picks (ip_local_port_range); 1337 and its like are fixed.
        (Kind::Name, r"(?:\d+\.\d+\.\d+\.\d+|\]|\*|localhost|htons\(|->127\.0\.0\.1)[:(]?((?:3[2-9]|4\d|5\d|60)\d{3})\b"),
        (Kind::Name, r"\bport ((?:3[2-9]|4\d|5\d|60)\d{3})\b"),
        (Kind::Name, r"\bhtons\(((?:3[2-9]|4\d|5\d|60)\d{3})\)"),
        // Processes.
        (Kind::Name, r"(?i)\b(?:process|worker|child|parent|pids?|ppid|from|about|of|am)[ =:]+(\d{1,7})\b"),
        (Kind::Name, r"(?i)\bkill\(?(?: -\w+)? ?(\d{1,7})\b"),
        (Kind::Name, r"\bpid[ =:](\d{1,7})\b"),
        (Kind::Name, r"\b(?:wait4|waitid|tgkill|setpgid)\((?:P_PID, )?(\d{1,7})\b"),
        (Kind::Name, r"\btgkill\(\d+, (\d+)"),
        (Kind::Name, r"\b(?:wait4|clone3?|fork|vfork|getpid|getppid|gettid)\(.* = (\d{1,7})\b"),
        (Kind::Name, r"\bsi_pid=(\d+)"),
        (Kind::Name, r"\bPid\((\d{1,7})\)"),
        (Kind::Name, r"^NSpg?id:\s(\d+)$"),
        (Kind::Name, r"^p(\d{1,7})$"), // lsof -F p
        (Kind::Name, r"/proc/(\d{1,7})\b"),
        (Kind::Name, r"/tmp/[a-z0-9-]+-(\d+)\b"),
        (Kind::Name, r"^\[\d+\][+-]? +(\d+)$"),
        (Kind::Name, r"^ *(\d{1,7}) (?:\d+ )?(?:[RSDZTt][sl+<N]*|pts/\d+|\?) "),
        (Kind::Name, r"^ *\d{2,7} (\d+) (?:[RSDZTt][sl+<N]*|pts/\d+|\?) "),
        (Kind::Name, r"^[\w-]+ +(\d+) +root\b"),
        (Kind::Name, r"^thread '.*' \((\d+)\) panicked"),
        // What the kernel counts.
        (Kind::Name, r"\b(?:socket|pipe):\[(\d+)\]"),
        (Kind::Any, r"\b(0x[0-9a-f]{5,})\b"),
        // Times.
        (Kind::Any, r"\b(\w{3}, \d{2} \w{3} \d{4} \d{2}:\d{2}:\d{2} GMT)\b"),
        (Kind::Any, r"\b(\d+(?:\.\d+)? ?(?:ms|µs|us|ns))\b"),
        (Kind::Any, r"\b(\d+\.\d+ ?(?:s|sec|seconds))\b"),
        (Kind::Any, r"\b(\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?)\b"),
        (Kind::Any, r"\btimer:\([a-z]+,([^,]+),"),
        (Kind::Any, r"(/tmp/(?:tmp)?\.[\w.]+)"),
    ]
    .map(|(kind, pattern)| (kind, Regex::new(pattern).expect("a valid pattern")))
    .into()
});

/// A line in pieces: text that must be the same, and variables.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    Variable(Kind, &'a str),
}

/// What stands for what: names of the page, and the names in this run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    actual: HashMap<String, String>,
    shown: HashMap<String, String>,
}

impl Names {
    /// Whether the line that came is the one that the page shows, as an output of `command`.
    /// If so, its names are remembered.
    pub(crate) fn same(&mut self, shown: &str, came: &str, command: &str) -> bool {
        let (shown, came) = (squeeze(shown), squeeze(came));
        let pids = ["pgrep", "pidof", "lsof -t", "$!", "$$", "-o pid="];
        let (shown, came) = if pids.iter().any(|it| command.contains(it)) {
            (format!("pid {shown}"), format!("pid {came}")) // nothing else tells what it is
        } else {
            (shown, came)
        };
        let (shown, came) = (pieces(&shown), pieces(&came));
        if shown.len() != came.len() {
            return false;
        }
        let mut new = Vec::new();
        for (shown, came) in shown.iter().zip(&came) {
            match (shown, came) {
                (Piece::Variable(Kind::Name, shown), Piece::Variable(Kind::Name, came)) => {
                    new.push((*shown, *came));
                }
                (Piece::Variable(one, _), Piece::Variable(other, _)) if one == other => {}
                (Piece::Text(shown), Piece::Text(came)) if shown == came => {}
                _ => return false,
            }
        }
        let fits = |(shown, came): &(&str, &str)| {
            let actual = self.actual.get(*shown).is_none_or(|it| it == came);
            actual && self.shown.get(*came).is_none_or(|it| it == shown)
        };
        if !new.iter().all(fits) {
            return false;
        }
        for (shown, came) in new {
            self.actual.insert(shown.to_string(), came.to_string());
            self.shown.insert(came.to_string(), shown.to_string());
        }
        true
    }

    /// A command of the page with this run's names: `kill 4711` ends the process that is
    /// really meant.
    pub(crate) fn translate(&self, command: &str) -> String {
        static NUMBER: LazyLock<Regex> =
            LazyLock::new(|| Regex::new(r"\b\d{2,7}\b").expect("valid"));
        let translated = NUMBER.replace_all(command, |found: &regex::Captures| {
            let number = &found[0];
            self.actual
                .get(number)
                .map_or(number, String::as_str)
                .to_string()
        });
        translated.into_owned()
    }
}

/// Columns are as wide as their widest number, so the width of a gap says nothing.
fn squeeze(line: &str) -> String {
    let mut squeezed = String::with_capacity(line.len());
    for character in line.trim().chars() {
        let space = character == ' ' || character == '\t';
        if !(space && squeezed.ends_with(' ')) {
            squeezed.push(if space { ' ' } else { character });
        }
    }
    squeezed
}

fn pieces(line: &str) -> Vec<Piece<'_>> {
    let mut found: Vec<(usize, usize, Kind)> = Vec::new();
    for (kind, pattern) in VARIABLES.iter() {
        for captures in pattern.captures_iter(line) {
            let part = captures.get(1).expect("group 1");
            let overlaps =
                |(start, end, _): &(usize, usize, Kind)| part.start() < *end && *start < part.end();
            if !found.iter().any(overlaps) {
                found.push((part.start(), part.end(), *kind));
            }
        }
    }
    found.sort_by_key(|(start, ..)| *start);
    let mut pieces = Vec::new();
    let mut copied = 0;
    for (start, end, kind) in found {
        pieces.push(Piece::Text(&line[copied..start]));
        pieces.push(Piece::Variable(kind, &line[start..end]));
        copied = end;
    }
    pieces.push(Piece::Text(&line[copied..]));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_differ_in_ports_pids_and_times_are_the_same() {
        for (shown, came) in [
            (
                "Client 127.0.0.1:52814 connected",
                "Client 127.0.0.1:40001 connected",
            ),
            (
                "You are connected to process 4711",
                "You are connected to process 99",
            ),
            (
                "Date: Sun, 06 Nov 1994 08:49:37 GMT",
                "Date: Wed, 25 Nov 2026 14:00:00 GMT",
            ),
            ("took 12 ms", "took 7 ms"),
            ("4711 1 S ch04-fork", "99 1 S   ch04-fork"),
            ("ESTAB 0 0   127.0.0.1:1337", "ESTAB  0  0 127.0.0.1:1337"),
        ] {
            assert!(Names::default().same(shown, came, ""), "{shown} / {came}");
        }
    }

    #[test]
    fn lines_that_differ_otherwise_are_not() {
        for (shown, came) in [
            ("Listening on 127.0.0.1:1337", "Listening on 127.0.0.1:9000"),
            (
                "Client 127.0.0.1:52814 connected",
                "Client 127.0.0.1:52814 left",
            ),
            ("524288 bytes", "524289 bytes"),
            ("exited with status 0", "exited with status 1"),
            ("", "something"),
        ] {
            assert!(!Names::default().same(shown, came, ""), "{shown} / {came}");
        }
    }

    #[test]
    fn a_name_means_the_same_all_along() {
        let mut names = Names::default();
        assert!(names.same("process 100", "process 7001", ""));
        assert!(names.same("worker 200", "worker 7002", ""));
        assert!(
            !names.same("process 100", "process 7002", ""),
            "another one"
        );
        assert!(
            !names.same("process 300", "process 7001", ""),
            "one for two"
        );
        assert_eq!(names.translate("kill -TERM 100"), "kill -TERM 7001");
        assert!(names.same("100", "7001", "pgrep ch04-fork"));
        assert!(!names.same("100", "7002", "pgrep ch04-fork"), "another one");
        assert!(!names.same("100", "7001", "wc -c"), "no process");
    }
}
