import ComposefsBytes
import ComposefsLinuxSystem
import ComposefsMounting
import Testing

/// The option strings of `mount -t composefs`.
@Suite struct HelperOptionTests {
    private func parse(_ lists: ByteString..., sloppy: Bool = false) throws -> HelperOptions {
        var options = HelperOptions()
        for list in lists { try options.add(list, sloppy: sloppy) }
        try options.check()
        return options
    }

    private func refusal(_ list: ByteString) -> MountOptionFault? {
        if case .options(let fault) = failure({ _ = try parse(list) }) { fault } else { nil }
    }

    @Test func whatMountComposefsTakes() throws {
        let options = try parse(
            "basedir=/a:/b,digest=0123,verity,upperdir=/u,workdir=/w,idmap=/proc/1/ns/user,ro")
        #expect(options.objects == ["/a", "/b"])
        #expect(options.digest == "0123")
        #expect(options.verity == .required)
        #expect(options.mount.upperDirectory == "/u" && options.mount.workDirectory == "/w")
        #expect(options.mount.idmap == "/proc/1/ns/user")
        #expect(options.isReadOnly)
        #expect(options.repository == nil && !options.isBootable && !options.isRemount)
        #expect(try parse("basedir=/a,ro,rw").isReadOnly == false)
        #expect(try parse("basedir=/a,rw,ro").isReadOnly)
        #expect(try parse("basedir=/a").verity == nil)
        #expect(try parse("basedir=/a,tryverity").verity == .ifSupported)
        #expect(try parse("basedir=/a,tryverity,verity").verity == .required)
        #expect(try parse("basedir=/a,verity,tryverity").verity == .required)
        #expect(try parse("basedir=/a,verity,noverity").verity == VerityChecking.none)
        #expect(try parse("basedir=/a", "basedir=/b").objects == ["/b"])
        let named = try parse("repo=/r,bootable,digest=ff")
        #expect(named.repository == "/r" && named.isBootable && named.digest == "ff" && named.verity == nil)
        #expect(try parse("repo=/r,verity").verity == .required)
        #expect(try parse("verity,tryverity,repo=/r").verity == .required)
    }

    @Test func pathsWithEverything() throws {
        #expect(try parse(#"basedir=/a\,b:/c\:d:/e\\f"#).objects == ["/a,b", "/c:d", #"/e\f"#])
        #expect(try parse(#"upperdir="/a,b:c",workdir=/d=e,basedir=/"x""#).mount.upperDirectory == "/a,b:c")
        #expect(try parse(#"upperdir="/a,b:c",workdir=/d=e,basedir=/"x""#).mount.workDirectory == "/d=e")
        // Quotes inside a value are part of it.
        #expect(try parse(#"upperdir="/a,b:c",workdir=/d=e,basedir=/"x""#).objects == [#"/"x""#])
        #expect(try parse(#"basedir=/end\"#).objects == [#"/end\"#])
        #expect(try parse(ByteString(Array("basedir=/".utf8) + [0xff, 0xfe])).objects == [ByteString([0x2f, 0xff, 0xfe])])
    }

    @Test func whatIsForOthersIsIgnored() throws {
        let options = try parse(
            "rw,defaults,_netdev,nofail,auto,noauto,x-systemd.automount,x-initrd.mount,X-mount.mkdir=0755,relatime,async,nouser,comment=x,loop,,basedir=/a"
        )
        #expect(options.mount.attributes.isEmpty && options.ignored.isEmpty && options.objects == ["/a"])
        #expect(try parse("basedir=/a,what,else=2", sloppy: true).ignored == ["what", "else"])
    }

    @Test func attributes() throws {
        func attributes(_ list: ByteString) throws -> MountAttributes { try parse("basedir=/a," + list).mount.attributes }
        #expect(try attributes("nosuid,nodev,noexec") == [.noSetUserID, .noDevices, .noExecute])
        #expect(try attributes("nosuid,nodev,suid") == [.noDevices])
        #expect(try attributes("nosuid,nodev,defaults") == [.noSetUserID, .noDevices])
        #expect(try attributes("noatime,strictatime") == [.strictAccessTime])
        #expect(try attributes("strictatime,noatime,nodiratime") == [.noAccessTime, .noDirectoryAccessTime])
        #expect(try attributes("noatime,relatime") == [])
        #expect(try attributes("nosymfollow") == [.noSymbolicLinks])
        #expect(try attributes("user") == [.noSetUserID, .noDevices, .noExecute])
        #expect(try attributes("user,exec") == [.noSetUserID, .noDevices])
        let remount = try parse("remount,suid,noexec,nosuid,dev")
        #expect(remount.isRemount && remount.mount.attributes == [.noSetUserID, .noExecute] && remount.clearedAttributes == .noDevices)
    }

    @Test func refusals() {
        #expect(refusal("") == .noObjects)
        #expect(refusal("basedir=/a,unknown=3") == .unknown("unknown"))
        #expect(refusal("basedir=/a,offset=4096") == .unknown("offset"))
        #expect(refusal("basedir") == .valueMissing("basedir"))
        #expect(refusal("basedir=") == .valueMissing("basedir"))
        #expect(refusal("basedir=::") == .emptyObjectList)
        #expect(refusal("basedir=/a,digest") == .valueMissing("digest"))
        #expect(refusal("basedir=/a,upperdir=/u") == .upperOrWorkMissing)
        #expect(refusal("basedir=/a,workdir=/u") == .upperOrWorkMissing)
        #expect(refusal("basedir=/a,repo=/r") == .objectsAndRepository)
        #expect(refusal("basedir=/a,bootable") == .bootableWithoutRepository)
        #expect(refusal("repo=/r,noverity") == .noVerityInRepository)
    }
}
