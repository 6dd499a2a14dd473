//! What not every host has: huge pages, weights of disks, systemd.

use super::*;

/// A controller that no v1 hierarchy has is handed down where it is asked for; afterwards the host is as before.
pub fn huge_pages_are_limited(stage: &Stage) -> Result<()> {
    let record = Record::plan("huge", Some(&format!("/{}.oci/huge", stage.name)), Manager::Files)?;
    let Some(tree) = record.groups.iter().find(|(_, c)| c.is_empty()).and_then(|(dir, _)| Some(dir.parent()?.parent()?.to_owned())) else {
        println!("skipped: no v2 tree");
        return Ok(());
    };
    let size = HugepageLimit { page_size: "2MB".into(), limit: 5 << 20 };
    if !lists(&tree, "hugetlb") || !Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB").exists() {
        println!("skipped: no hugetlb controller on v2, or no pages of 2 MB");
        return Ok(());
    }
    let control = tree.join("cgroup.subtree_control");
    let before = fs::read_to_string(&control)?;
    let container = Made::new(stage, "huge", &Resources { hugepage_limits: vec![size], ..Resources::default() });
    let checked = container.and_then(|container| {
        ensure!(container.says("hugetlb", &["hugetlb.2MB.max"])? == (4 << 20).to_string());
        let missing = HugepageLimit { page_size: "3MB".into(), limit: 5 << 20 };
        let e = container
            .cgroup
            .update(&Resources { hugepage_limits: vec![missing], ..Resources::default() })
            .err()
            .context("pages that there are none of")?;
        ensure!(e.to_string().contains("hugetlb.3MB"), "{e}");
        Ok(())
    });
    if !before.contains("hugetlb") {
        fs::write(&control, "-hugetlb")?;
    }
    checked
}

pub fn weights_and_ceilings_of_disks(stage: &Stage) -> Result<()> {
    let Some(disk) = support::groups::disk_of(Path::new("/usr/bin")) else {
        println!("skipped: /usr/bin is on no disk");
        return Ok(());
    };
    let (major, minor) = disk.split_once(':').context("MAJOR:MINOR")?;
    let device = ThrottleDevice { major: major.parse()?, minor: minor.parse()?, rate: 1 << 20 };
    let io = BlockIo { throttle_read_bps_device: vec![device.clone()], throttle_write_iops_device: vec![device], ..BlockIo::default() };
    let container = Made::new(stage, "disks", &Resources { block_io: Some(io), ..Resources::default() })?;
    let controller = if container.dir("blkio").is_some() { "blkio" } else { "io" };
    let says = container.says(controller, &["blkio.throttle.read_bps_device", "io.max"])?;
    ensure!(says.starts_with(&disk) && says.contains("1048576"), "{says}");
    let weight = Resources { block_io: Some(BlockIo { weight: Some(500), ..BlockIo::default() }), ..Resources::default() };
    match container.cgroup.update(&weight) {
        Ok(()) => {
            let says = container.says(controller, &["blkio.weight", "blkio.bfq.weight", "io.bfq.weight", "io.weight"])?;
            ensure!(["500", "default 500", "default 4950"].iter().any(|want| says.starts_with(want)), "{says}");
        }
        Err(e) => ensure!(e.to_string().contains("linux.resources.blockIO.weight: this kernel has no"), "{e}"),
    }
    Ok(())
}

pub fn a_scope_of_systemds(stage: &Stage) -> Result<()> {
    if !Path::new("/run/systemd/private").exists() {
        println!("skipped: systemd does not run here");
        return Ok(());
    }
    let path = format!("system.slice:dyno:{}", stage.name);
    let record = Record::plan("scope", Some(&path), Manager::Systemd)?;
    let resources = Resources {
        memory: Some(Memory { limit: Some(64 * MIB), ..Memory::default() }),
        pids: Some(Pids { limit: Some(33) }),
        ..Resources::default()
    };
    let mut sleep = Command::new("sleep").arg("1000").spawn()?;
    let mut cgroup = Cgroup::create(&record, &resources, None)?;
    ensure!(cgroup.birthplace().is_none());
    let adopted = cgroup.adopt(sleep.id());
    let checked = adopted.map_err(anyhow::Error::from).and_then(|()| {
        let own = fs::read_to_string(format!("/proc/{}/cgroup", sleep.id()))?;
        ensure!(own.contains(&format!("/system.slice/dyno-{}.scope", stage.name)), "{own}");
        let made = Cgroup::open(&record)?;
        ensure!(made.pids(false)? == [sleep.id()]);
        let (dir, _) = record.groups.iter().find(|(dir, c)| c.is_empty() || dir.join("pids.max").exists()).context("no group")?;
        let reload = || Command::new("systemctl").arg("daemon-reload").status();
        ensure!(reload()?.success());
        ensure!(fs::read_to_string(dir.join("pids.max"))?.trim() == "33");
        made.update(&Resources { pids: Some(Pids { limit: Some(44) }), ..Resources::default() })?;
        ensure!(reload()?.success());
        ensure!(fs::read_to_string(dir.join("pids.max"))?.trim() == "44");
        made.freeze()?;
        ensure!(made.is_frozen()?);
        // The same name again.
        let mut other = Command::new("sleep").arg("1000").spawn()?;
        let again = Cgroup::create(&record, &resources, None)?.adopt(other.id());
        other.kill()?;
        other.wait()?;
        ensure!(again.is_err_and(|e| e.to_string().contains("UnitExists")));
        Ok(())
    });
    let removed = Cgroup::open(&record)?.remove();
    sleep.kill()?;
    sleep.wait()?;
    checked?;
    removed?;
    ensure!(record.groups.iter().all(|(dir, _)| !dir.exists()), "something is left");
    let unit = Command::new("systemctl").args(["show", "--property=LoadState", "--value", &format!("dyno-{}.scope", stage.name)]).output()?;
    ensure!(unit.stdout == b"not-found\n", "{unit:?}");
    Ok(())
}
