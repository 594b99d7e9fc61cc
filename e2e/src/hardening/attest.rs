//! Attested images: what was changed in an image's layers on the node does not run.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use containerd_client::types::Mount;
use serde_json::json;

use super::{attacked, shown};
use crate::context::Ctx;
use crate::expect::refused;
use crate::harness::Registry;
use crate::same;
use crate::task::policy::annotated;

/// Layers of the test's own, as an overlay.
struct Image {
    layer: PathBuf,
    rootfs: Vec<Mount>,
}

impl Image {
    async fn new(c: &Ctx) -> Result<Self> {
        let layer = c.mapped_root().await?;
        let below = c.directory.join("below");
        std::fs::create_dir_all(below.join("etc"))?;
        std::fs::write(below.join("etc/motd"), "welcome\n")?;
        let options = vec![format!("lowerdir={}:{}", layer.display(), below.display())];
        let rootfs = vec![Mount {
            r#type: "overlay".to_owned(),
            source: "overlay".to_owned(),
            target: String::new(),
            options,
        }];
        Ok(Self { layer, rootfs })
    }

    /// What a container of it with this digest prints, or why it is refused.
    async fn run(&self, c: &Ctx, digest: Option<&str>) -> Result<String> {
        let container = c.container().sh("cat /etc/motd /usr/data/planted 2>/dev/null; true");
        let container = match digest {
            Some(digest) => annotated(container, &json!({"nucleus.dev/rootfs_digest": digest})),
            None => container,
        };
        let mut prepared = container.prepare().await?;
        prepared.rootfs = self.rootfs.clone();
        let container = prepared.create().await?;
        container.start().await?;
        let output = container.output().await?;
        container.delete().await?;
        Ok(output.stdout)
    }
}

pub fn register(t: &mut Registry) {
    t.add(
        "an image that was changed on the node is refused by its digest",
        async |c| {
            let image = Image::new(c).await?;
            let error = refused(image.run(c, Some(&format!("sha256:{}", "0".repeat(64)))).await)?;
            let error = error.saying("is demanded")?.text;
            let found = error.split_once("have sha256:").context("no digest is told")?.1;
            let digest = format!("sha256:{}", found.get(..64).context("a short digest")?);
            same!(image.run(c, Some(&digest)).await?, "welcome\n");
            let planted = image.layer.join("usr/data/planted");
            std::fs::write(&planted, "planted\n")?;
            same!(
                image.run(c, None).await?,
                "welcome\nplanted\n",
                "without the digest it runs"
            );
            shown(1);
            refused(image.run(c, Some(&digest)).await)?.saying("rootfs_digest")?;
            attacked(1);
            std::fs::remove_file(&planted)?;
            same!(image.run(c, Some(&digest)).await?, "welcome\n", "as it was");
            let probe = image.layer.join("bin/probe");
            std::fs::set_permissions(&probe, std::os::unix::fs::PermissionsExt::from_mode(0o4755))?;
            refused(image.run(c, Some(&digest)).await)?.saying("rootfs_digest")?;
            attacked(1);
            Ok(()) as Result<()>
        },
    )
    .differs("runc does not look at the image");

    t.add(
        "a root file system without layers is refused where a digest is demanded",
        async |c| {
            let root = c.mapped_root().await?;
            let container = c.container().args(&["true"]).root_at(&root);
            let container = annotated(container, &json!({"nucleus.dev/rootfs_digest": "0".repeat(64)}));
            refused(container.create().await)?.saying("no overlay of layers")?;
            Ok(()) as Result<()>
        },
    )
    .differs("runc does not look at the image");
}
