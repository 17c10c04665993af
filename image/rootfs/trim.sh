# Sourced by build.sh: takes out of a Debian tree what a node never uses. A package's files go by dpkg's own lists; check-libraries
# then proves that nothing left behind needs them.

# The package manager and what only it needs, boot loader (it lives on the disk, not in the image) and Debian's initramfs.
trimmed_packages='apt apt-utils libapt-pkg7.0 sqv libnettle8t64 libhogweed6t64 debian-archive-keyring dpkg debconf perl-base ucf sensible-utils
  libtext-charwidth-perl libtext-wrapi18n-perl libtext-iconv-perl adduser base-passwd
  grub-common grub-pc-bin grub-efi-amd64-bin grub-efi-amd64-unsigned gettext-base libfreetype6 libpng16-16t64 libbrotli1 libfuse3-4 libefiboot1t64 libefivar1t64 efibootmgr
  initramfs-tools initramfs-tools-core initramfs-tools-bin dracut-install klibc-utils libklibc cpio linux-base logsave runit-helper gcc-14-base'

# Kept of Debian's 20 CNI plugins; a network that brings its own puts them into /opt/cni/bin.
cni_plugins='bandwidth bridge firewall host-local loopback portmap tuning'

# File systems and buses that no Kubernetes node mounts its data from.
trimmed_modules='fs/bcachefs fs/exfat fs/ntfs3 fs/orangefs fs/romfs fs/sysv fs/zonefs fs/smb/server drivers/net/wwan drivers/net/mhi_net.ko.xz drivers/gpu drivers/hid drivers/input'

# Units that would redo at every boot, /etc being new each time, what the image's build has done, or that serve what the image has not.
masked_units='ldconfig.service systemd-hwdb-update.service systemd-journal-catalog-update.service systemd-update-done.service systemd-sysusers.service
  systemd-remount-fs.service systemd-network-generator.service systemd-sysext.socket systemd-initctl.socket systemd-creds.socket systemd-ask-password-console.path
  systemd-ask-password-wall.path modprobe@drm.service systemd-firstboot.service systemd-machine-id-commit.service systemd-pstore.service
  dev-hugepages.mount sys-kernel-debug.mount systemd-udev-load-credentials.service proc-sys-fs-binfmt_misc.automount'

trim() {
  local root=$1 package version module unit
  chroot "$root" dpkg-query -W -f '${Package} ${Version}\n' >"$root/usr/lib/rekindle.packages"
  for package in $trimmed_packages; do remove_package "$root" "$package"; done
  rm -rf "$root"/var/lib/{dpkg,apt,ucf,pam,systemd/deb-systemd-*,initramfs-tools} "$root"/var/{cache,log,backups}/* "$root"/etc/{apt,dpkg,kernel,initramfs-tools,grub.d,perl,cron*,init.d,rc?.d,xdg,logrotate.d}
  rm -rf "$root"/usr/share/{doc,man,info,locale,lintian,i18n,bash-completion,zsh,common-licenses,bug,perl5,debconf,pixmaps,menu,mime,icons,applications,polkit-1,gdb,grub,initramfs-tools,maven-repo,java,runit,doc-base}
  find "$root/usr/lib" -maxdepth 3 \( -name 'perl*' -o -path '*/udev/hwdb*' \) -prune -exec rm -rf {} +
  rm -rf "$root"/usr/lib/{grub,initramfs-tools,klibc*,locale,systemd/catalog} "$root"/usr/lib/x86_64-linux-gnu/gconv
  rm -f "$root"/usr/bin/containerd-shim "$root"/usr/bin/containerd-shim-runc-v1 "$root"/usr/bin/containerd-stress
  rm -f "$root"/usr/lib/systemd/system-generators/systemd-{cryptsetup,gpt-auto,hibernate-resume,import,integritysetup,rc-local,ssh,sysv,tpm2,veritysetup}-generator
  for unit in $masked_units; do ln -sfn /dev/null "$root/usr/lib/systemd/system/$unit"; done
  rm -f "$root"/boot/initrd* "$root"/{initrd.img,vmlinuz}* "$root"/etc/ssh/ssh_host_* "$root"/etc/hostname "$root"/etc/.pwd.lock "$root"/etc/*-
  find "$root/usr/lib/cni" -type f | while read -r plugin; do
    [[ " $cni_plugins " == *" $(basename "$plugin") "* ]] || rm "$plugin"
  done
  version=$(basename "$root"/usr/lib/modules/*)
  for module in $trimmed_modules; do rm -rf "$root/usr/lib/modules/$version/kernel/$module"; done
  chroot "$root" depmod "$version"
  mv "$root/boot/vmlinuz-$version" "$root/boot/vmlinuz"
  rm -rf "$root"/boot/System.map* "$root"/boot/grub "$root"/{media,mnt,home,srv,opt}/* "$root"/{tmp,run}/*
}

remove_package() {
  local list=$1/var/lib/dpkg/info/$2.list
  [ -e "$list" ] || list=$1/var/lib/dpkg/info/$2:amd64.list
  [ -e "$list" ] || return 0
  while read -r path; do [ -d "$1$path" ] && [ ! -L "$1$path" ] || rm -f "$1$path"; done <"$list"
}
