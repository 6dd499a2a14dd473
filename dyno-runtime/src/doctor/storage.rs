//! File systems, disks and the tools that go with them; the network.

use super::{Finding, Severity, ground::Ground};

pub(super) fn storage(ground: &Ground) -> Vec<Finding> {
    let filesystem = |name: &str, costs: &str, option: &str| {
        let found = ground.filesystem(name);
        Finding::new("storage", name, found.unwrap_or("not there")).missing_unless(
            found.is_some(),
            costs,
            format!("modprobe {name} (CONFIG_{option}=m or y)"),
        )
    };
    vec![
        filesystem("overlay", "no root can be made of layers", "OVERLAY_FS"),
        filesystem("squashfs", "images cannot be mounted; directories can be layers", "SQUASHFS").weighs(Severity::Wanted),
        filesystem("tmpfs", "nothing can be written to", "TMPFS"),
        filesystem("ext4", "no writable layer on disk (Upper::Disk)", "EXT4_FS").weighs(Severity::Wanted),
        filesystem("devpts", "no terminals", "UNIX98_PTYS").weighs(Severity::Wanted),
        loops(ground),
        program(ground, "storage", "mkfs.ext4", "no writable layer on disk (Upper::Disk)", "apt install e2fsprogs"),
        program(ground, "storage", "mksquashfs", "images cannot be made here", "apt install squashfs-tools"),
    ]
}

fn loops(ground: &Ground) -> Finding {
    let control = "/dev/loop-control";
    let there = ground.exists(control) || ground.module("loop");
    let open = !ground.root_user || !ground.exists(control) || ground.writable(control);
    let found = match (ground.exists(control), there) {
        (true, _) => control,
        (false, true) => "a module that is not loaded",
        (false, false) => "not there",
    };
    Finding::new("storage", "loop devices", found)
        .weighs(Severity::Wanted)
        .missing_unless(there, "images and writable layers on disk cannot be mounted", "modprobe loop (CONFIG_BLK_DEV_LOOP=m or y)")
        .limited_unless(
            ground.exists(control),
            "the first image waits for the module, if it may be loaded at all",
            "modprobe loop; persistently in /etc/modules-load.d/",
        )
        .limited_unless(open, "images and writable layers on disk cannot be mounted", "in a container: give it /dev/loop-control and loop devices")
}

fn program(ground: &Ground, area: &str, name: &str, costs: &str, fix: &str) -> Finding {
    let found = ground.program(name);
    let text = found.as_ref().map_or_else(|| "not installed".to_owned(), |path| path.display().to_string());
    Finding::new(area, name, text).weighs(Severity::Wanted).missing_unless(found.is_some(), costs, fix)
}

pub(super) fn network(ground: &Ground) -> Vec<Finding> {
    let forward = ground.number("/proc/sys/net/ipv4/ip_forward");
    let says = |on: bool, yes: &'static str, no: &'static str| if on { yes } else { no };
    vec![
        program(ground, "network", "nft", "no network with a way out (Network::Egress)", "apt install nftables"),
        links(ground),
        Finding::new("network", "ip_forward", says(forward == Some(1), "on", "off")).weighs(Severity::Note).limited_unless(
            forward == Some(1),
            "the first sandbox with a way out (Network::Egress) switches it on, without letting the host forward for others; taking the instance down puts it back",
            "nothing, or sysctl -w net.ipv4.ip_forward=1 if the host is to be a router anyway",
        ),
    ]
}

fn links(ground: &Ground) -> Finding {
    let lacks = ground.links.as_deref().unwrap_or_default().join("; ");
    let found = match &ground.links {
        None => "only root can try",
        Some(lacks) if lacks.is_empty() => "tried: a link and its rules can be made",
        Some(_) => &lacks,
    };
    Finding::new("network", "links", found).weighs(Severity::Wanted).missing_unless(
        lacks.is_empty(),
        "no network with a way out (Network::Egress)",
        "apt install nftables; modprobe veth nf_tables (CONFIG_VETH, CONFIG_NF_TABLES_INET, CONFIG_NFT_NAT, CONFIG_NFT_MASQ, CONFIG_NFT_FIB_INET)",
    )
}
