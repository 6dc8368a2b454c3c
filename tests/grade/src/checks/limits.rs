//! HTTP clients that want too much: of memory, of time, or at once.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::bytes::{count, size};
use crate::catalog::Traits;
use crate::check::{Case, Check, Deadline, During, Failure, ORDINARY, Result, Stop};
use crate::checks::files::{LARGE, Site, expect_part};
use crate::checks::http::ends_with;
use crate::checks::idle::settles;
use crate::checks::leftovers::{at_rest, descriptors_are_at_most};
use crate::client::{Client, STALL};
use crate::http::{Answers, request, request_with};
use crate::job::{Job, Limits};
use crate::proc;
use crate::server::{Launch, Server};

const TOO_SLOW: &str = "no timer runs, or each byte starts it again, so that a few slow clients \
                        hold every place there is";

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "a head of 8 KiB and 40 headers is served",
        cause: "a head must fit into one read, or into a small buffer",
        section: "ch03-reactor/http.md#limits",
        descriptors: ORDINARY,
        applies: Traits::is_http,
        run: large_head,
    },
    Check {
        name: "a head beyond the limit is refused with 431 or 400",
        cause: "the head has no limit, or the socket is closed while bytes still come, which \
                sends a reset",
        section: "ch03-reactor/http.md#limits",
        descriptors: ORDINARY,
        applies: Traits::is_http,
        run: long_heads,
    },
    Check {
        name: "a head without end costs no memory",
        cause: "what was read is kept until the head is complete, which it never is",
        section: "ch03-reactor/http.md#limits",
        descriptors: ORDINARY,
        applies: Traits::is_http,
        run: endless_head,
    },
    Check {
        name: "a client that asks and never reads is held, and then gets every answer",
        cause: "the server answers on while its answers pile up in memory",
        section: "ch02-select/back-pressure.md#back-pressure",
        descriptors: ORDINARY,
        applies: Traits::is_http,
        run: answers_unread,
    },
    Check {
        name: "a client that never says a word is closed in time",
        cause: TOO_SLOW,
        section: "ch03-reactor/http.md#timers",
        descriptors: ORDINARY,
        applies: Traits::serves_files,
        run: |case| closed_in_time(case, |_| Ok(())),
    },
    Check {
        name: "a client that says no more after an answer is closed in time",
        cause: TOO_SLOW,
        section: "ch03-reactor/http.md#timers",
        descriptors: ORDINARY,
        applies: Traits::serves_files,
        run: |case| closed_in_time(case, |client| case.talk(client, "")),
    },
    Check {
        name: "a client with half a request is closed in time",
        cause: TOO_SLOW,
        section: "ch03-reactor/http.md#timers",
        descriptors: ORDINARY,
        applies: Traits::serves_files,
        run: |case| closed_in_time(case, |client| client.send(HALF)),
    },
    Check {
        name: "a client that sends a byte at a time is closed in time",
        cause: TOO_SLOW,
        section: "ch03-reactor/http.md#timers",
        descriptors: ORDINARY,
        applies: Traits::serves_files,
        run: drips,
    },
    Check {
        name: "an active client is never cut",
        cause: "the timer runs from the connection's start, and not from each request's",
        section: "ch03-reactor/http.md#timers",
        descriptors: ORDINARY,
        applies: Traits::serves_files,
        run: active,
    },
    Check {
        name: "a client that does not read its file is closed in time, and delays nobody",
        cause: "the timer runs for requests only, or a write waits for the client",
        section: "ch03-reactor/http.md#timers",
        descriptors: ORDINARY,
        applies: Traits::serves_files,
        run: unread_file,
    },
    Check {
        name: "a slow reader gets a large file whole",
        cause: "the timer is not started again when some of the answer has gone out",
        section: "ch03-reactor/http.md#timers",
        descriptors: ORDINARY,
        applies: Traits::serves_files,
        run: slow_reader,
    },
    Check {
        name: "wrk counts no error",
        cause: "an answer before its request, or a close with unread bytes, shows to a load \
                generator as an error of read or write",
        section: "ch03-reactor/practice.md#load",
        descriptors: ORDINARY,
        applies: Traits::is_http,
        run: |case| wrk(case, &[]),
    },
    Check {
        name: "wrk counts no error when each request has a connection of its own",
        cause: "an answer before its request, or a close with unread bytes, shows to a load \
                generator as an error of read or write",
        section: "ch03-reactor/practice.md#load",
        descriptors: ORDINARY,
        applies: Traits::is_http,
        run: |case| wrk(case, &["--header", "Connection: close"]),
    },
];

/// The beginning of a request, which never goes on.
const HALF: &[u8] = b"GET / HTTP/1.1\r\nHost: grade.exam";

/// How much the server may grow for one client, whatever that does.
const GROWTH: u64 = 1 << 20;

/// A server that takes this much from a client that must be held has no limit.
const NO_LIMIT: u64 = 16 << 20;

/// What a browser sends with many cookies.
fn large_head(case: &Case) -> Result {
    let cookies: String = (0..38)
        .map(|number| format!("X-Header-{number}: {}\r\n", "v".repeat(195)))
        .collect();
    let request = request_with("GET", "/", &cookies);
    case.serve(|server| {
        let mut client = case.client(server)?;
        Answers::of(&mut client)
            .ask(&request)?
            .require(&request, &[200])
    })
}

fn long_heads(case: &Case) -> Result {
    const LONG: usize = 100 << 10;
    let lines: String = (0..1_000)
        .map(|number| format!("X-{number}: v\r\n"))
        .collect();
    let value = format!("X-Long: {}\r\n", "v".repeat(LONG));
    let target = format!("/{}", "t".repeat(LONG));
    let kinds: [(Vec<u8>, &[u16]); 4] = [
        (request_with("GET", "/", &value), &[431, 400]),
        (request_with("GET", "/", &lines), &[431, 400]),
        // There is a status of its own for a long target.
        (request("GET", &target), &[431, 414, 400]),
        (b"M".repeat(LONG), &[431, 400]),
    ];
    case.serve(|server| {
        for (request, statuses) in &kinds {
            let mut client = case.client(server)?;
            ends_with(&mut client, request, statuses)?;
        }
        Ok(())
    })
}

fn endless_head(case: &Case) -> Result {
    proc::available()?;
    case.serve(|server| {
        let heads: [(&[u8], &[u8]); 2] = [
            (
                b"GET / HTTP/1.1\r\nHost: grade.example\r\n",
                b"X-Header: value\r\n",
            ),
            (b"GET /", b"target"),
        ];
        for (start, more) in heads {
            case.visit(server)?;
            let before = server.resident();
            let mut client = case.client(server)?;
            client.send(start)?;
            // It may be held or refused, or cut in the end: all is well but memory.
            let pushed = client.push_repeatedly(more, 4 * GROWTH, Duration::from_secs(1));
            if let Err(skipped @ Stop::Skipped(_)) = pushed {
                return Err(skipped);
            }
            settles(server); // what it has not read yet, it does not hold yet
            grew_little(server, before, "sending a head without end")?;
        }
        Ok(())
    })
}

fn grew_little(server: &Server, before: u64, what: &str) -> Result {
    let grown = server.resident().saturating_sub(before);
    if grown < GROWTH {
        return Ok(());
    }
    Failure::new(what)
        .expected(format!("a server that grows by less than {}", size(GROWTH)))
        .came(format!("growth of {} KiB", count(grown >> 10)))
        .stop()
}

fn answers_unread(case: &Case) -> Result {
    /// How long a write must be stuck to be held.
    const HELD: Duration = Duration::from_secs(1);
    let page = request("GET", "/");
    let length = page.len() as u64;
    case.serve(|server| {
        let mut other = case.client(server)?;
        case.talk(&mut other, "")?;
        let mut client = case.narrow_client(server)?;
        // What is made once for a client is there before the measurement.
        read_answers(case, &mut client, &page, 2_000)?;
        let before = server.resident();
        let pushed = client.push_repeatedly(&page, NO_LIMIT, HELD)?;
        if !pushed.held {
            return Failure::new("asking without ever reading")
                .sent(size(pushed.bytes))
                .expected("a server that stops reading")
                .came("it takes more")
                .stop();
        }
        grew_little(server, before, "asking without ever reading")?;
        case.talk(&mut other, "")?;
        let mut answers = Answers::of(&mut client);
        for _ in 0..pushed.bytes / length {
            answers.next(&page)?.require(&page, &[200])?;
        }
        // The last request is a part of one, or nothing.
        let sent = (pushed.bytes % length) as usize;
        answers.client().send(&page[sent..])?;
        answers.next(&page)?.require(&page, &[200])?;
        answers.leave()
    })
}

/// Asks many times in one write, and reads all the answers.
fn read_answers(case: &Case, client: &mut Client, page: &[u8], number: usize) -> Result {
    client.send(&page.repeat(number))?;
    let mut answers = Answers::of(client);
    for _ in 0..number {
        let answer = answers.next(page)?;
        answer.require(page, &[200])?;
        case.stays(&answer)?;
    }
    answers.no_more()
}

/// Runs a server of ours that gives its clients only so many seconds.
fn hurried(case: &Case, seconds: &str, body: impl FnOnce(&Server) -> Result) -> Result {
    case.conventions()?;
    let launch = Launch::new(case.program, case.deadline).arguments(&["--timeout", seconds]);
    case.serve_with(launch, body)
}

/// A client does something, and then no more.
fn closed_in_time(case: &Case, act: impl Fn(&mut Client) -> Result) -> Result {
    hurried(case, "1", |server| {
        let mut client = case.client(server)?;
        act(&mut client)?;
        if !client.is_closed_within(STALL) {
            return not_closed("saying no more");
        }
        case.visit(server)
    })
}

fn not_closed(what: &str) -> Result {
    Failure::new(format!("{what}, with --timeout 1"))
        .expected(format!("to be closed within {} s", STALL.as_secs()))
        .came("a connection that stays open")
        .stop()
}

fn drips(case: &Case) -> Result {
    hurried(case, "1", |server| {
        let mut client = case.client(server)?;
        // The time of a request counts from its own beginning.
        case.talk(&mut client, "")?;
        let bytes = HALF.iter().chain(std::iter::repeat(&b'x'));
        let deadline = Deadline::after(STALL);
        for byte in bytes {
            let closed = client.send(&[*byte]).is_err()
                || client.is_closed_within(Duration::from_millis(100));
            if closed {
                break;
            }
            if deadline.left().is_zero() {
                return not_closed("sending a byte every 100 ms");
            }
        }
        case.visit(server)
    })
}

fn active(case: &Case) -> Result {
    const PAUSE: Duration = Duration::from_millis(400);
    let page = request("GET", "/");
    let (start, rest) = page.split_at(HALF.len());
    hurried(case, "2", |server| {
        let mut client = case.client(server)?;
        let mut answers = Answers::of(&mut client);
        for _ in 0..6 {
            answers.client().send(start)?;
            answers.silence(start, PAUSE)?;
            answers.client().send(rest)?;
            answers.next(&page)?.require(&page, &[200])?;
            answers.silence(b"", PAUSE)?;
        }
        answers.leave()
    })
}

fn unread_file(case: &Case) -> Result {
    proc::available()?;
    let mut site = Site::new()?;
    site.add("index.html", b"a page")?;
    site.add_pattern("large", LARGE)?;
    site.serve(case, &["--timeout", "1"], |server| {
        case.visit(server)?;
        let before = at_rest(case, server);
        let mut client = case.narrow_client(server)?;
        client.send(&request("GET", "/large"))?;
        // A part of the file is on its way; the rest waits.
        client.skip(1_000)?;
        for _ in 0..10 {
            case.visit(server)?;
        }
        descriptors_are_at_most(case, server, before)
    })
}

fn slow_reader(case: &Case) -> Result {
    /// Read in parts of 64 KiB with a pause after each: 3 s and more in all.
    const FILE: u64 = 4 << 20;
    const PAUSE: Duration = Duration::from_millis(50);
    let mut site = Site::new()?;
    site.add_pattern("large", FILE)?;
    site.serve(case, &["--timeout", "1"], |server| {
        let request = request("GET", "/large");
        let mut client = case.narrow_client(server)?;
        let mut answers = Answers::of(&mut client);
        answers.client().send(&request)?;
        answers.head(&request)?.require(&request, &[200])?;
        let mut offset = 0;
        while offset < FILE {
            offset += expect_part(&mut answers, &request, offset, FILE)?;
            std::thread::sleep(PAUSE);
        }
        Ok(())
    })
}

/// Loads the server with wrk (github.com/wg/wrk, a package of most systems).
fn wrk(case: &Case, arguments: &[&str]) -> Result {
    let Some(wrk) = installed("wrk") else {
        return Err(Stop::skipped("the load generator wrk is not installed"));
    };
    case.serve(|server| {
        let url = format!("http://{}/", server.address());
        let mut command = Command::new(&wrk);
        command.args(["-t2", "-c50", "-d2s", "--timeout", "5s"]);
        command.args(arguments).arg(&url);
        let mut job = Job::start(command, Limits::default()).during("starting wrk")?;
        let status = job.wait(case.deadline);
        let said = job.stdout.text();
        let requests = said
            .lines()
            .find_map(|line| line.trim().split_once(" requests in"));
        let some = requests.and_then(|(number, _)| number.parse::<u64>().ok());
        let failed = said.contains("Socket errors") || said.contains("Non-2xx");
        if status.is_some_and(|status| status.success()) && some > Some(0) && !failed {
            return Ok(());
        }
        let mut failure =
            Failure::new(format!("running wrk -t2 -c50 -d2s {}", arguments.join(" ")))
                .expected("answers, and no line about errors")
                .came(match status {
                    Some(_) => "these lines of wrk",
                    None => "no end of it",
                });
        let lines = said
            .lines()
            .chain(job.stderr.text().lines())
            .map(|line| format!("wrk: {line}"))
            .collect::<Vec<_>>();
        failure.server.extend(lines);
        failure.stop()
    })
}

/// A command of this machine.
fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut places = std::env::split_paths(OsStr::new(&path)).map(|it| it.join(name));
    places.find(|it: &PathBuf| Path::is_file(it))
}
