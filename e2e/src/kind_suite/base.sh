# Makes of a directory with a Debian what kind's Dockerfile makes of its base image: kind's files, systemd's units, CNI plugins.
# Environment: ROOT, the directory; FILES, `images/base/files` of kind's sources.
set -eu
cp -r "$FILES"/. "$ROOT"/
chmod -R u+w "$ROOT/kind" "$ROOT/etc/systemd/system" "$ROOT/etc/containerd" "$ROOT/usr/local/bin"
(cd "$FILES" && find . -type d) | (cd "$ROOT" && xargs chmod 0755)
(cd "$FILES" && find . -type f) | (cd "$ROOT" && xargs chmod 0644)
chmod 0755 "$ROOT"/usr/local/bin/* "$ROOT"/kind/bin/*

cd "$ROOT"
find usr/lib/systemd/system/sysinit.target.wants -name systemd-tmpfiles-setup.service -delete
rm -f usr/lib/systemd/system/multi-user.target.wants/* etc/systemd/system/*.wants/* usr/lib/systemd/system/local-fs.target.wants/* \
    usr/lib/systemd/system/sockets.target.wants/*udev* usr/lib/systemd/system/sockets.target.wants/*initctl* \
    usr/lib/systemd/system/basic.target.wants/*
echo ReadKMsg=no >>etc/systemd/journald.conf
for unit in kubelet containerd undo-mount-hacks; do
    ln -sf "/etc/systemd/system/$unit.service" "etc/systemd/system/multi-user.target.wants/$unit.service"
done
ln -sf /dev/null etc/systemd/system/systemd-binfmt.service

mkdir -p etc/kubernetes/manifests opt/cni/bin etc/cni/net.d
cp usr/lib/cni/host-local usr/lib/cni/loopback usr/lib/cni/ptp usr/lib/cni/portmap opt/cni/bin/
rm -rf var/cache/apt/archives/*.deb var/lib/apt/lists/* usr/share/doc usr/share/man usr/share/locale
