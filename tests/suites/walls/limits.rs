//! Limits: what a dyno takes too much of ends with itself.

use anyhow::{Result, ensure};
use dyno_tests::{Platform, until};

use super::{APP, deployed, inside, others_are_well};

/// The writable layer is a tmpfs of the size's bytes.
pub(super) fn disk(platform: &Platform) -> Result<()> {
    deployed(platform)?;
    let command = "dd if=/dev/zero of=/app/fill bs=1M; echo status $?; stat -c %s /app/fill; rm /app/fill; echo again > /app/small && echo room";
    let said = platform.try_dyno(&["run", "-a", APP, "--no-tty", "--size", "basic", "--", command])?;
    ensure!(said.stderr.contains("No space left on device") && said.stdout.contains("status 1\n"), "{said:?}");
    let written = said.stdout.lines().filter_map(|l| l.parse::<u64>().ok()).max().unwrap_or_default();
    // 256 MB less what the layer itself needs.
    ensure!((200 << 20..=256 << 20).contains(&written), "{written} bytes were written: {said:?}");
    ensure!(said.stdout.ends_with("room\n"), "a full disk did not get room again: {said:?}");
    // /dev/shm is another way to memory: 64 MB.
    let said = platform.try_dyno(&["run", "-a", APP, "--no-tty", "--", "dd if=/dev/zero of=/dev/shm/fill bs=1M; stat -c %s /dev/shm/fill"])?;
    ensure!(said.stderr.contains("No space left on device") && said.stdout == format!("{}\n", 64 << 20), "{said:?}");
    others_are_well(platform)
}

/// … with the size's number of inodes, so that empty files are no way past the bytes.
pub(super) fn inodes(platform: &Platform) -> Result<()> {
    let script =
        "import os\nn = 0\ntry:\n    while n < 100000:\n        os.mknod(f'/tmp/{n}'); n += 1\nexcept OSError as e:\n    print(n, e.strerror)";
    let output = inside(platform, &format!("python3 -c \"{script}\""))?;
    let (files, why) = output.trim().split_once(' ').unwrap_or_default();
    ensure!(why == "No space left on device" && files.parse().is_ok_and(|n: u32| (60_000..=65_536).contains(&n)), "{output}");
    others_are_well(platform)
}

/// The pids controller: 256 for Standard-1X, init and threads counted.
pub(super) fn fork_bomb(platform: &Platform) -> Result<()> {
    let script = "import os, time\nn = 0\ntry:\n    while n < 2000:\n        if os.fork() == 0: time.sleep(1000)\n        n += 1\nexcept OSError as e:\n    print(n, e.strerror, flush=True)";
    // Its children are ended with it: init kills what is left when the main process ends.
    let output = inside(platform, &format!("python3 -c \"{script}\""))?;
    let (children, why) = output.trim().split_once(' ').unwrap_or_default();
    ensure!(why == "Resource temporarily unavailable" && children.parse().is_ok_and(|n: u32| (240..256).contains(&n)), "{output}");

    // One that never stops by itself is stopped from outside, and nothing of it is left.
    platform.ok(&["run:detached", "-a", APP, "echo bombing; b() { b | b & }; b; sleep 100000"])?;
    platform.await_log(APP, "]: bombing", 10)?;
    let bomb = platform.seen(APP)?.into_iter().find(|(name, _)| name.starts_with("run.")).map(|(_, dyno)| dyno);
    let bomb = bomb.ok_or_else(|| anyhow::anyhow!("the bomb is not listed"))?;
    others_are_well(platform)?;
    let refused = || {
        Ok(std::fs::read_to_string(platform.group_file(&bomb.id, "pids.events")?)?
            .lines()
            .any(|l| l.starts_with("max ") && l != "max 0")
            .then_some(()))
    };
    until(20, "the bomb meets its limit", refused)?;
    bomb.init.ends(40, || platform.ok(&["ps:stop", "run", "-a", APP]).map(drop))?;
    until(10, "nothing is left of the bomb", || Ok((!platform.groups()?.contains(&bomb.id)).then_some(())))?;
    others_are_well(platform)
}

/// The memory controller: 512 MB for Standard-1X; the kernel kills inside the group and nowhere else.
pub(super) fn memory(platform: &Platform) -> Result<()> {
    deployed(platform)?;
    let command = "exec python3 -c 'x = b\"x\" * (700 << 20); print(len(x))'";
    let begun = platform.ok(&["run:detached", "-a", APP, "--json", "--", command])?;
    let begun: serde_json::Value = serde_json::from_str(&begun)?;
    let name = begun["name"].as_str().unwrap_or_default();
    let waited = platform.try_dyno(&["run:wait", name, "-a", APP, "--json"])?;
    let ended: serde_json::Value = serde_json::from_str(&waited.stdout)?;
    let exit = &ended["exit"];
    ensure!(waited.status == 137 && exit["cause"] == "memory" && exit["status"] == 137, "{waited:?}");
    let peak = exit["memory_peak"].as_u64().unwrap_or_default();
    ensure!((500 << 20..=512 << 20).contains(&peak), "memory peak {peak}");
    platform.await_log(APP, &format!("heroku[{name}]: Error R15 (Memory quota vastly exceeded)"), 10)?;
    others_are_well(platform)
}
