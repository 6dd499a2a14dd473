//! The program that runs inside the tests' sandboxes. Compiled by the tests, statically, with rustc alone.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, IsTerminal, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::{linux::net::SocketAddrExt, unix::net::{SocketAddr, UnixStream}},
    time::{Duration, Instant},
};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    if let Err(e) = run(&args) {
        println!("errno {}", e.raw_os_error().unwrap_or(-1));
        std::process::exit(9);
    }
}

fn run(args: &[&str]) -> io::Result<()> {
    match args {
        ["exit", code] => std::process::exit(number(code) as i32),
        ["abort"] => std::process::abort(),
        ["forever"] => forever(),
        ["say", words @ ..] => println!("{}", words.join(" ")),
        ["warn", words @ ..] => eprintln!("{}", words.join(" ")),
        ["copy"] => io::copy(&mut io::stdin(), &mut io::stdout()).map(drop)?,
        ["lines", count] => lines(number(count))?,
        ["env"] => std::env::vars().for_each(|(name, value)| println!("{name}={value}")),
        ["cwd"] => println!("{}", std::env::current_dir()?.display()),
        ["read", path] => io::copy(&mut File::open(path)?, &mut io::stdout()).map(drop)?,
        ["read-and-wait", path] => {
            run(&["read", path])?;
            forever()
        }
        ["write", path, text] => OpenOptions::new().create(true).write(true).truncate(true).open(path)?.write_all(text.as_bytes())?,
        ["list", path] => list(path)?,
        ["fill", path] => fill(path)?,
        ["fill-and-fail", path] => {
            fill(path)?;
            std::process::exit(1)
        }
        ["files", dir] => files(dir),
        ["open-files"] => open_files(),
        ["eat", bytes] => eat(number(bytes) as usize),
        ["eat-and-wait", bytes] => {
            let mut memory = vec![0u8; number(bytes) as usize];
            memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
            forever()
        }
        [after, more @ ..] if after.ends_with("-when-told") => {
            // The end of its input is the word.
            io::copy(&mut io::stdin(), &mut io::sink())?;
            run(&[&[after.trim_end_matches("-when-told")], more].concat())?;
        }
        ["tick", ..] => tick()?,
        ["write-through", path, bytes] => write_through(path, number(bytes) as usize)?,
        ["threads", count] => threads(number(count)),
        ["spin", millis] => spin(Duration::from_millis(number(millis))),
        ["serve", port] => serve(number(port) as u16)?,
        ["connect", port] => connect(number(port) as u16)?,
        ["reach", address] => println!("{}", io::read_to_string(TcpStream::connect(address)?)?),
        ["terminal"] => terminal()?,
        ["rename", from, to] => fs::rename(from, to)?,
        ["flood", bytes] => flood(number(bytes))?,
        ["bind", port] => drop(TcpListener::bind((Ipv4Addr::LOCALHOST, number(port) as u16))?),
        // As sd_notify(3) does.
        ["ready"] => {
            let to = std::env::var("NOTIFY_SOCKET").map_err(io::Error::other)?;
            std::os::unix::net::UnixDatagram::unbound()?.send_to(b"STATUS=warm\nREADY=1\n", to)?;
            forever()
        }
        ["abstract", name] => drop(UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?),
        ["chown", path, uid] => std::os::unix::fs::chown(path, Some(number(uid) as u32), None)?,
        ["children", count, millis] => children(number(count), millis)?,
        ["call", number, args @ ..] => call(number, args)?,
        ["mknod", path, mode, device] => mknod(path, number(mode), number(device))?,
        ["leave-behind"] => leave_behind()?,
        ["orphan"] => drop(std::process::Command::new("/bin/program").arg("forever").stdout(std::process::Stdio::null()).spawn()?),
        ["orphans"] => orphans()?,
        ["nap", millis] => std::thread::sleep(Duration::from_millis(number(millis))),
        other => panic!("no such command: {other:?}"),
    }
    Ok(())
}

fn number(text: &str) -> u64 {
    text.parse().expect("a number")
}

/// Says so, so that whoever waits for it knows that the program runs.
fn forever() -> ! {
    println!("here");
    loop {
        std::thread::park();
    }
}

fn lines(count: u64) -> io::Result<()> {
    let mut out = io::LineWriter::new(io::stdout());
    (0..count).try_for_each(|n| writeln!(out, "line {n}"))
}

fn list(path: &str) -> io::Result<()> {
    let mut names: Vec<String> = fs::read_dir(path)?.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    println!("{}", names.join(" "));
    Ok(())
}

/// Writes until it may not; how many bytes there were and why it ended.
fn fill(path: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    let (chunk, mut written) = ([7u8; 4096], 0);
    loop {
        match file.write(&chunk) {
            Ok(n) => written += n,
            Err(e) => break println!("{written} errno {}", e.raw_os_error().unwrap_or(-1)),
        }
    }
    Ok(())
}

fn files(dir: &str) {
    for n in 0.. {
        if let Err(e) = File::create(format!("{dir}/{n}")) {
            return println!("{n} errno {}", e.raw_os_error().unwrap_or(-1));
        }
    }
}

/// To stdout and stderr in turn.
fn flood(bytes: u64) -> io::Result<()> {
    for n in 0..bytes / 1000 {
        let line = [b'x'; 1000];
        if n % 2 == 0 { io::stdout().write_all(&line)? } else { io::stderr().write_all(&line)? }
    }
    Ok(())
}

/// Processes that each spin.
fn children(count: u64, millis: &str) -> io::Result<()> {
    let myself = "/bin/program";
    let start = |_| std::process::Command::new(myself).args(["spin", millis]).spawn();
    let children = (0..count).map(start).collect::<io::Result<Vec<_>>>()?;
    for mut child in children {
        child.wait()?;
    }
    Ok(())
}

fn open_files() {
    let mut open = Vec::new();
    loop {
        match File::open("/dev/null") {
            Ok(file) => open.push(file),
            Err(e) => return println!("{} errno {}", open.len(), e.raw_os_error().unwrap_or(-1)),
        }
    }
}

fn eat(bytes: usize) {
    let mut memory = vec![0u8; bytes];
    memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    println!("ate {}", memory.iter().map(|b| usize::from(*b)).sum::<usize>());
}

/// A family of four, each with two threads: dots without end.
fn tick() -> io::Result<()> {
    let dots = || loop {
        let mut out = io::stdout();
        if out.write_all(b".").and_then(|()| out.flush()).is_err() {
            std::process::exit(0);
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    if std::env::args().len() == 2 {
        for _ in 0..3 {
            std::process::Command::new("/bin/program").args(["tick", "alone"]).spawn()?;
        }
    }
    std::thread::spawn(dots);
    dots()
}

/// Each piece is on the disk before the next is written (O_SYNC).
fn write_through(path: &str, bytes: usize) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = OpenOptions::new().create(true).write(true).custom_flags(0o4_010_000).open(path)?;
    vec![7u8; bytes].chunks(65536).try_for_each(|piece| file.write_all(piece))
}

fn threads(count: u64) {
    for n in 0..count {
        if let Err(e) = std::thread::Builder::new().stack_size(65536).spawn(std::thread::park) {
            println!("{n} errno {}", e.raw_os_error().unwrap_or(-1));
            std::process::exit(0);
        }
    }
    println!("{count}");
    std::process::exit(0)
}

fn spin(time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        std::hint::spin_loop();
    }
}

fn serve(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    println!("listening");
    let (mut stream, _) = listener.accept()?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    stream.write_all(text.to_uppercase().as_bytes())
}

fn connect(port: u16) -> io::Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.write_all(b"from inside")
}

/// A raw system call, numbers only.
/// By the C library's own function: the standard library has none.
fn mknod(path: &str, mode: u64, device: u64) -> io::Result<()> {
    unsafe extern "C" {
        fn mknod(path: *const std::ffi::c_char, mode: u32, device: u64) -> i32;
    }
    let path = std::ffi::CString::new(path)?;
    // SAFETY: `path` is NUL-ended.
    if unsafe { mknod(path.as_ptr(), mode as u32, device) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn call(nr: &str, args: &[&str]) -> io::Result<()> {
    unsafe extern "C" {
        fn syscall(number: i64, ...) -> i64;
    }
    let mut all = [0u64; 6];
    all.iter_mut().zip(args).for_each(|(to, text)| *to = number(text));
    let [a, b, c, d, e, f] = all;
    // SAFETY: the tests pass calls whose pointers may be null or name nothing.
    let answer = unsafe { syscall(number(nr) as i64, a, b, c, d, e, f) };
    if answer == -1 {
        return Err(io::Error::last_os_error());
    }
    println!("answer {answer}");
    Ok(())
}

/// Ends, and leaves a child that has its streams and does not mind that its terminal is hung up.
fn leave_behind() -> io::Result<()> {
    unsafe extern "C" {
        fn signal(signal: i32, handler: usize) -> usize;
    }
    // SAFETY: SIGHUP, SIG_IGN; children inherit it.
    unsafe { signal(1, 1) };
    std::process::Command::new("/bin/program").arg("forever").spawn()?;
    println!("left");
    std::process::exit(3)
}

/// Has a grandchild that is nobody's child any more, says so, and waits for the end of its input.
fn orphans() -> io::Result<()> {
    std::process::Command::new("/bin/program").arg("orphan").status()?;
    println!("orphaned");
    io::copy(&mut io::stdin(), &mut io::sink()).map(drop)
}

fn terminal() -> io::Result<()> {
    println!("{} {} {}", io::stdin().is_terminal(), io::stdout().is_terminal(), io::stderr().is_terminal());
    // Opening /dev/tty works only for a controlling terminal.
    OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    println!("{}", line.trim().to_uppercase());
    Ok(())
}
