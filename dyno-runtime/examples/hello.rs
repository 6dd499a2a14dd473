//! The smallest use: run one command on a directory, with every wall up.
//!
//! `cargo run --example hello -- ROOTFS COMMAND [ARG…]` (as root)

use dyno_runtime::{Host, Layer, Sandbox, StartOptions, Stdio};

fn main() -> dyno_runtime::Result<()> {
    let mut args = std::env::args().skip(1);
    let rootfs = args.next().unwrap_or_else(|| "/".to_owned());
    let command: Vec<String> = args.collect();
    let host = Host::open("/run/dyno-hello".as_ref(), "dyno-hello")?;
    let mut sandbox = Sandbox::new(vec![Layer::Directory(rootfs.into())], command);
    sandbox.env.insert("PATH".into(), "/usr/bin:/bin".into());
    let result = run(&host, &sandbox);
    host.dismantle()?;
    std::process::exit(result?)
}

fn run(host: &Host, sandbox: &Sandbox) -> dyno_runtime::Result<i32> {
    let dyno = host.start("hello.1", sandbox, StartOptions { stdio: Stdio::Inherit, ..Default::default() })?;
    let exit = dyno.wait()?;
    eprintln!("{exit:?}\n{:?}", dyno.timing());
    dyno.free()?;
    Ok(exit.status)
}
