//! The mutants. Where one makes several mistakes, no check meets two of them. The failure of
//! each must be certain: what fails only if it is slow, or fast, is no mutant.

/// A chapter's program with a few words replaced.
pub(crate) struct Mutant {
    pub(crate) name: &'static str,
    /// The binary of a chapter that it is made from; it promises the same.
    pub(crate) of: &'static str,
    /// What is wrong: "a program that ...".
    pub(crate) mistake: &'static str,
    /// What is right, and stands in the source exactly once, and what is put in its place.
    pub(crate) edits: &'static [(&'static str, &'static str)],
    /// The checks that it must fail. It may fail others, too.
    pub(crate) fails: &'static [&'static str],
}

#[rustfmt::skip]
pub(crate) const MUTANTS: &[Mutant] = &[
    // Every server: its command line, and its first words.
    Mutant {
        name: "names-wish", of: "ch01-echo",
        mistake: "names the port that it was asked for, not the one that it got",
        edits: &[("\"Listening on {local}\"", "\"Listening on {address}\"")],
        fails: &["the first line names the real port"],
    },
    Mutant {
        name: "careless-start", of: "ch01-echo",
        mistake: "has no help, lets mistakes on its command line pass, and forgets SO_REUSEADDR",
        edits: &[
            ("#[derive(Parser)]", "#[derive(Parser)] #[command(disable_help_flag = true, ignore_errors = true)]"),
            ("listener.set_reuse_address(true)?;", ""),
        ],
        fails: &[
            "--help explains the address",
            "an unknown flag is refused by its name",
            "a restart on the same port works at once",
        ],
    },
    // Echo.
    Mutant {
        name: "echoes-lines", of: "ch01-echo",
        mistake: "takes a stream of bytes for lines of text",
        edits: &[(
            "loop {\n        match connection.read(buffer)",
            "for line in io::BufRead::lines(io::BufReader::new(connection)) { writeln!(connection, \"{}\", line?)?; }
             loop {\n        match connection.read(buffer)",
        )],
        fails: &[
            "one byte comes back",
            "every byte value comes back unchanged",
            "bytes sent one at a time come back one at a time",
        ],
    },
    Mutant {
        name: "blocks-in-loop", of: "ch03-reactor",
        mistake: "makes a blocking call in the event loop",
        edits: &[(
            "reactor.add(stream, Interest::Read, connection)?;",
            "stream.set_nonblocking(false)?; io::copy(&mut &stream, &mut &stream)?;",
        )],
        fails: &[
            "idle clients delay nobody",
            "1,000 clients at once are served",
            "10,000 clients at once are served",
        ],
    },
    Mutant {
        name: "reads-the-end-again", of: "echo-poll",
        mistake: "reads, again and again, from a client that has half-closed and left",
        edits: &[("Some((true, _)) if !self.ended => self.receive(buffer),", "Some((true, _)) => self.receive(buffer),")],
        fails: &["a client that half-closes and leaves with bytes pending is let go"],
    },
    Mutant {
        name: "full-too-early", of: "ch02-select",
        mistake: "takes the error of accept for a client who waits",
        edits: &[("                _ if tried > 0 => break,\n", "                _ if tried > 1_000_000 => break,\n")],
        fails: &["a server that is exactly full sleeps"],
    },
    // UDP.
    Mutant {
        name: "udp-cuts", of: "echo-udp",
        mistake: "cuts datagrams at 1 KiB",
        edits: &[("const BUFFER_SIZE: usize = 65_535;", "const BUFFER_SIZE: usize = 1024;")],
        fails: &["datagrams of 1 to 8,192 bytes come back to their sender", "a datagram of 65,507 bytes comes back"],
    },
    Mutant {
        name: "udp-text", of: "echo-udp",
        mistake: "takes datagrams for text, and \"0\" for none",
        edits: &[(
            "let _ = match socket.send_to(&buffer[..count], peer) {",
            "let text = String::from_utf8_lossy(&buffer[..count]);
             let answer = if text.is_empty() || text == \"0\" { \"Say something\" } else { &*text };
             let _ = match socket.send_to(answer.as_bytes(), peer) {",
        )],
        fails: &[
            "a datagram \"0\" is data",
            "every byte value comes back in a datagram",
            "an empty datagram is answered by an empty one and ends nothing",
            "no datagram is answered by more bytes than it had",
        ],
    },
    Mutant {
        name: "udp-one-sender", of: "echo-udp",
        mistake: "answers its first sender only, and each sender only once",
        edits: &[
            ("    loop {", "    let (mut first, mut met) = (None, std::collections::HashSet::new());\n    loop {"),
            ("if peer.port() == own.port() {", "if peer.port() == own.port() || !met.insert(peer) {"),
            ("socket.send_to(&buffer[..count], peer) {", "socket.send_to(&buffer[..count], *first.get_or_insert(peer)) {"),
        ],
        fails: &[
            "two datagrams get two answers",
            "ten senders each get their own datagrams",
            "a sender that is gone disturbs nobody",
        ],
    },
    Mutant {
        name: "udp-trusts", of: "echo-udp",
        mistake: "answers whatever port a datagram names, and ends when an answer cannot be sent",
        edits: &[
            ("if peer.port() == own.port() {", "if false {"),
            ("Err(error) => writeln!(io::stderr(), \"{count} bytes from {peer}: {error}\"),", "Err(error) => return Err(error.into()),"),
        ],
        fails: &[
            "a datagram that cannot be answered disturbs nobody",
            "a datagram forged in the server's own name starts no loop",
        ],
    },
    // The client.
    Mutant {
        name: "client-takes-turns", of: "echo-client",
        mistake: "reads all of its input, sends it, and only then looks for an answer",
        edits: &[
            (
                "let _ = io::copy(&mut io::stdin(), &mut &outgoing);",
                "let mut all = Vec::new(); let _ = io::stdin().read_to_end(&mut all); let _ = (&outgoing).write_all(&all);",
            ),
            ("    });\n\n    // Print", "    }).join();\n\n    // Print"),
        ],
        fails: &[
            "a line goes out when it is typed",
            "16 MiB through a slow echo come back whole",
            "a server that closes first ends the client",
        ],
    },
    Mutant {
        name: "client-print", of: "echo-client",
        mistake: "shows text, and only whole lines of it, as print! does",
        edits: &[("stdout.write_all(bytes)?;\n    stdout.flush()", "write!(stdout, \"{}\", String::from_utf8_lossy(bytes))")],
        fails: &["an answer without a newline is shown at once", "binary bytes pass unchanged in both directions"],
    },
    Mutant {
        name: "client-careless", of: "echo-client",
        mistake: "never half-closes, and looks at no error of its output; what it says of others lacks the address",
        edits: &[
            ("let _ = outgoing.shutdown(Shutdown::Write);", "std::mem::forget(outgoing);"),
            (".with_context(|| format!(\"cannot connect to {address}\"))?", ".context(\"cannot connect\")?"),
            (".with_context(|| format!(\"lost {address}\"))", ".context(\"lost\")"),
            ("print(&buffer[..count]).context(\"cannot print\")?", "{ let _ = print(&buffer[..count]); }"),
        ],
        fails: &[
            "the end of the input half-closes, and the rest is shown",
            "a reset is an error that names the address",
            "a refused connection is an error that names the address",
            "the client ends when the reader of its output goes away",
        ],
    },
    // HTTP.
    Mutant {
        name: "http-closes", of: "reactor-http",
        mistake: "closes after each answer, and does not say so",
        edits: &[("answer.close |= !version_1_1", "answer.close |= true || !version_1_1"), ("\"Connection: close\\r\\n\"", "\"\"")],
        fails: &[
            "ten requests in one write are answered in order",
            "a connection serves 100 requests",
            "an active client is never cut",
            "wrk counts no error",
            "wrk counts no error when each request has a connection of its own",
        ],
    },
    Mutant {
        name: "http-half-heard", of: "reactor-http",
        mistake: "forgets the type of its page, knows paths only, takes few headers, and collects and leaks all that comes before the empty line",
        edits: &[
            ("answer.headers = \"Content-Type: text/html; charset=utf-8\\r\\n\".into();", "answer.headers = String::new();"),
            ("Some(rest) => rest.find", "Some(rest) if rest.is_empty() => rest.find"),
            ("            None => target,", "            _ => target,"),
            ("const MAX_HEADERS: usize = 64;", "const MAX_HEADERS: usize = 16;"),
            ("            drop(buffer);\n", "            for _ in 0..8 { std::mem::forget(buffer[..count].to_vec()); }\n            drop(buffer);\n            if !self.input.ends_with(b\"\\r\\n\\r\\n\") { return Ok(()); }\n"),
            // What the kernel still holds is not in the server's memory yet: let that be little.
            ("let _ = stream.set_nodelay(true);", "let _ = SockRef::from(&stream).set_recv_buffer_size(32 << 10);"),
        ],
        fails: &[
            "a request gets the page, with its type and length",
            "a whole URL is a target, too",
            "a head of 8 KiB and 40 headers is served",
            "a head without end costs no memory",
        ],
    },
    Mutant {
        name: "http-no-timer", of: "reactor-http",
        mistake: "waits for every client forever",
        edits: &[("        self.timer = Some(reactor.add_timer(", "        if after > LINGER || true { return; }\n        self.timer = Some(reactor.add_timer(")],
        fails: &[
            "a client that never says a word is closed in time",
            "a client that says no more after an answer is closed in time",
            "a client with half a request is closed in time",
            "a client that sends a byte at a time is closed in time",
            "a client that does not read its file is closed in time, and delays nobody",
        ],
    },
    Mutant {
        name: "http-no-pressure", of: "reactor-http",
        mistake: "reads and answers on while a client reads nothing, ends with the client's half, and gives a file one term",
        edits: &[
            ("&& self.body.is_none() && self.output.len() < BUFFER_SIZE", "&& self.body.is_none()"),
            ("Interest::Write\n        } else if self.state == State::Closing", "Interest::ReadWrite\n        } else if self.state == State::Closing"),
            ("if sent > 0 || self.timer.is_none()", "if sent > 0 && self.body.is_none() || self.timer.is_none()"),
        ],
        fails: &[
            "a client that asks and never reads is held, and then gets every answer",
            "a half-close after asking for 8 MiB does not cut the file",
            "a slow reader gets a large file whole",
        ],
    },
    Mutant {
        name: "http-one-write", of: "reactor-http",
        mistake: "believes that a write takes everything, and that no file is empty",
        edits: &[
            ("self.sent += sent;", "self.sent = self.output.len();"),
            ("const BUFFER_SIZE: usize = 64 * 1024;", "const BUFFER_SIZE: usize = 16 << 20;"),
            ("            if *left == 0 {", "            if piece == 0 { return Err(io::Error::other(\"empty\")); }\n            if *left == 0 {"),
            ("_ if self.head_only || length == 0 => {}", "_ if self.head_only => {}"),
        ],
        fails: &["an empty file is an answer of no bytes", "a file of 8 MiB comes byte for byte, and the connection goes on"],
    },
    Mutant {
        name: "http-joins-paths", of: "reactor-http",
        mistake: "opens whatever the target names, from the directory on, as HTML",
        edits: &[
            ("path.read_dir().and_then(|_| path.canonicalize());", "io::Result::Ok(path.to_path_buf());"),
            ("percent_decode_str(path)\n        .decode_utf8()\n        .map_err(|_| ErrorKind::NotFound)?;", "path;"),
            ("matches!(part, Component::Normal(_) | Component::CurDir)", "true"),
            ("    if path.ends_with('/') {", "    if false {"),
            ("!file.starts_with(root) || !file.metadata()?.is_file()", "false"),
            ("mime_guess::from_path(&file)", "mime_guess::from_path(\"index.html\")"),
        ],
        fails: &[
            "files come with their content and their type",
            "names with spaces, percent signs and other letters are found",
            "a target that ends with a slash is its directory's index.html",
            "what is no file is answered with 404 at once",
            "nothing outside the directory ever comes back",
            "a directory that is not there is refused with a reason",
        ],
    },
    // Processes.
    Mutant {
        name: "fork-names-parent", of: "fork-per-client",
        mistake: "greets with the parent's number",
        edits: &[("process {}\\n\", process::id());", "process {}\\n\", Pid::parent());")],
        fails: &["each of several clients is greeted by a process of its own"],
    },
    Mutant {
        name: "fork-turns-away", of: "ch04-fork",
        mistake: "turns away the client past the limit, which may be 0",
        edits: &[
            ("let room = children.len() < max_procs as usize;", "let room = true;"),
            ("Ok(accepted) => accepted,", "Ok(_) if children.len() >= max_procs as usize => continue,\n            Ok(accepted) => accepted,"),
            (", value_parser = clap::value_parser!(u32).range(1..)", ""),
        ],
        fails: &[
            "the client past the limit waits, and is served once another leaves",
            "a limit of 0, or one that is no number, is refused with a reason",
        ],
    },
    Mutant {
        name: "pool-no-back-off", of: "worker-pool",
        mistake: "replaces workers as fast as they die",
        edits: &[("pause = if young { longer(pause) } else { Duration::ZERO };", "pause = Duration::ZERO;")],
        fails: &["workers that die young are replaced, but ever more slowly"],
    },
    Mutant {
        name: "pool-reaps-when-full", of: "worker-pool",
        mistake: "looks for dead workers only when all of them were started",
        edits: &[
            ("if let Some((child, fate)) = reap(", "if full && let Some((child, fate)) = reap("),
        ],
        fails: &["a dead worker is replaced although another cannot be forked"],
    },
    Mutant {
        name: "basics-no-wait", of: "fork-basics",
        mistake: "tells how its child ended without having waited for it",
        edits: &[("wait_for(child),", "{ println!(\"My child {child} exited with status 0\"); Ok(()) }")],
        fails: &[
            "parent and child name themselves, and the parent tells how the child ended",
            "a child killed by a signal is reported as killed",
        ],
    },
    Mutant {
        name: "basics-swaps", of: "fork-basics",
        mistake: "takes its parent's process id for its own",
        edits: &[("(process::id(), Pid::parent())", "(Pid::parent(), process::id())")],
        fails: &["parent and child name themselves, and the parent tells how the child ended"],
    },
    // Signals.
    Mutant {
        name: "cleanup-default", of: "ch05-signals",
        mistake: "leaves the signals to the kernel, which ends it before it can say or remove anything",
        edits: &[("endings.thread_block()", "SigSet::empty().thread_block()")],
        fails: &["SIGINT and SIGTERM are answered by a line that names the signal", "SIGINT and SIGTERM leave no scratch file behind"],
    },
    Mutant {
        name: "cleanup-status-0", of: "ch05-signals",
        mistake: "removes its file at the wrong time, and ends as if nobody had asked for it",
        edits: &[
            ("        Ok(Scratch { path })", "        fs::remove_file(&path)?; Ok(Scratch { path })"),
            ("    end_by(signal)\n", "    Ok(())\n"),
        ],
        fails: &[
            "a shell sees status 130 after SIGINT and 143 after SIGTERM",
            "SIGKILL ends the program at once, and its scratch file stays",
        ],
    },
    Mutant {
        name: "cleanup-twice", of: "ch05-signals",
        mistake: "cleans up once for each signal, and ends by one that may still be ignored",
        edits: &[("    unsafe { signal(caught, SigHandler::SigDfl) }?;\n", ""), (
            "    drop(scratch);\n",
            "    drop(scratch);\n    let next = libc::timespec { tv_sec: 0, tv_nsec: 100_000_000 };
             if unsafe { libc::sigtimedwait(endings.as_ref(), std::ptr::null_mut(), &next) } > 0 { println!(\"Received SIGTERM. Cleaning up and terminating\"); }\n",
        )],
        fails: &[
            "two signals at once end the program once",
            "a program that was started with SIGINT ignored ends on SIGINT all the same",
        ],
    },
    Mutant {
        name: "explorer-table", of: "signal-explorer",
        mistake: "says that SIGQUIT dumps no core and SIGCONT is ignored, and tells no sender",
        edits: &[
            ("\"ends, dumps core\"", "\"ends\""),
            ("\"goes on\"", "\"is ignored\""),
            ("format!(\"from process {} of user {}\", info.ssi_pid, info.ssi_uid)", "\"from somebody\".into()"),
        ],
        fails: &[
            "the table has the notes' signals and their relatives, with the kernel's defaults",
            "the table says which signals dump core, as the kernel does",
            "each signal that arrives is a line, with its sender where the system tells",
        ],
    },
    Mutant {
        name: "explorer-ends-early", of: "signal-explorer",
        mistake: "ends at the first SIGINT, but not when nobody reads what it says",
        edits: &[
            ("if unheard || signal == SIGTERM || signal == SIGINT && before == Some(SIGINT)", "if signal == SIGTERM || signal == SIGINT"),
        ],
        fails: &["SIGINT twice in a row or SIGTERM ends the explorer with status 0", "the explorer ends when nobody reads its output"],
    },
    Mutant {
        name: "explorer-ignores", of: "signal-explorer",
        mistake: "has a signal ignored, which then never becomes pending",
        edits: &[(
            "    let mut before = None;",
            "    unsafe { nix::sys::signal::signal(SIGUSR1, nix::sys::signal::SigHandler::SigIgn) }?; SigSet::from(SIGUSR1).thread_unblock()?;\n    let mut before = None;",
        )],
        fails: &["100 signals to a stopped program arrive at least once, and not 100 times"],
    },
    Mutant {
        name: "waits-once", of: "signal-waits",
        mistake: "has handlers that are reset when they run (SA_RESETHAND), and ends on SIGTERM only",
        edits: &[
            ("        SaFlags::empty(),", "        SaFlags::SA_RESETHAND,"),
            ("    signal == SIGUSR1\n", "    signal != SIGTERM\n"),
        ],
        fails: &[
            "each of 200 signals, sent when the one before it was told, is told",
            "10,000 signals as fast as possible are survived, and the last one is told",
            "SIGINT and SIGTERM end the waiting with a line and status 0",
        ],
    },
    Mutant {
        name: "waits-clears-late", of: "signal-waits",
        mistake: "clears the flag of a signal when it is done with it, and so forgets the next one",
        edits: &[(
            "        let _ = reader.read(&mut [0; 64]);
        for signal in WATCHED {
            if ARRIVED[signal as usize].swap(false, SeqCst) && !handle(signal) {
                return Ok(());
            }",
            "        let _ = reader.read(&mut [0; 64]);
        for signal in WATCHED {
            if ARRIVED[signal as usize].load(SeqCst) && !handle(signal) {
                return Ok(());
            }
            ARRIVED[signal as usize].store(false, SeqCst);",
        )],
        fails: &["a signal that comes while the program is busy is told afterwards"],
    },
    Mutant {
        name: "waits-numbers-in-pipe", of: "signal-waits",
        mistake: "writes the signals' numbers into the pipe, where there is no room for SIGTERM when it is full",
        edits: &[
            ("    set_flag(signal);\n", "    let number = signal as u8;\n"),
            ("c\"\".as_ptr().cast()", "(&raw const number).cast()"),
            (
                "        let _ = reader.read(&mut [0; 64]);
        for signal in WATCHED {
            if ARRIVED[signal as usize].swap(false, SeqCst) && !handle(signal) {",
                "        let mut numbers = [0; 64];
        let count = reader.read(&mut numbers).unwrap_or(0);
        for number in &numbers[..count] {
            if !handle(Signal::try_from(i32::from(*number))?) {",
            ),
        ],
        fails: &["a flood of SIGUSR1 loses no SIGTERM, even if nobody reads the output"],
    },
    // Graceful shutdown.
    Mutant {
        name: "graceful-stops", of: "graceful-echo",
        mistake: "ends at once when it is asked to, with its clients in the middle of a sentence",
        edits: &[("            service.stop_if_drained(reactor);\n        }\n", "            reactor.stop();\n        }\n")],
        fails: &["asked to end, the server echoes to its clients until the last one leaves"],
    },
    Mutant {
        name: "graceful-resets", of: "graceful-echo",
        mistake: "has handlers that are reset when they run (SA_RESETHAND), and cuts off clients with status 0",
        edits: &[
            ("SaFlags::SA_RESTART,", "SaFlags::SA_RESETHAND,"),
            ("service.open.get() == 0,\n", "true,\n"),
        ],
        fails: &[
            "at the deadline the server ends with status 1, though a client stays",
            "a second SIGTERM or SIGINT ends the server at once with status 1",
            "a storm of SIGHUP and SIGUSR1 during a 16 MiB echo loses no byte",
        ],
    },
    Mutant {
        name: "graceful-settings", of: "graceful-echo",
        mistake: "takes defaults for bad settings, never uses those it reads again, and ends without a file",
        edits: &[
            ("toml::from_str(&text).with_context(|| format!(\"cannot use {}\", path.display()))", "Ok(toml::from_str(&text).unwrap_or_default())"),
            ("self.settings.set(settings);", ""),
            ("there is no settings file to read again\");", "\"); std::process::exit(1);"),
        ],
        fails: &[
            "SIGHUP re-reads the settings, and connections survive",
            "bad settings on SIGHUP are reported with file and line, and change nothing",
            "SIGHUP without a settings file says so, and ends nothing",
            "bad settings at the start are refused with file and line",
        ],
    },
    Mutant {
        name: "graceful-miscounts", of: "graceful-echo",
        mistake: "keeps its port while it drains, and counts those whom it refuses as accepted",
        edits: &[
            ("                reactor.remove(listener);\n", ""),
            ("        service.refused.update(|count| count + 1);\n", "        service.accepted.update(|count| count + 1);\n"),
        ],
        fails: &["asked to end, the server refuses newcomers", "SIGUSR1 tells counters that are true"],
    },
];
