import ComposefsBytes
import ComposefsDumpfile
import ComposefsFileTree
import ComposefsImageStore
import Testing

private func transformed(_ dump: String, _ filtering: XattrFiltering = .allowlistOnly) throws -> String {
    var tree = try parseDumpfile(Array(dump.utf8))
    transformForContainer(&tree, filtering)
    return String(decoding: dumpfile(of: tree), as: UTF8.self)
}

@Suite struct TransformTests {
    @Test func theRootIsLikeUsr() throws {
        let usr = "/usr 0 40711 2 5 6 0 77.123 - - - security.capability=c security.selinux=s trusted.t=t user.u=u"
        let image = "/ 0 40700 3 1 1 0 1.1 - - - user.root=gone\n\(usr)\n"
        #expect(
            try transformed(image) == """
                / 0 40711 3 5 6 0 77.123 - - - security.capability=c
                /usr 0 40711 2 5 6 0 77.123 - - - security.capability=c

                """)
        #expect(
            try transformed(image, .keepUserXattrs) == """
                / 0 40711 3 5 6 0 77.123 - - - security.capability=c user.u=u
                /usr 0 40711 2 5 6 0 77.123 - - - security.capability=c user.u=u

                """)
    }

    @Test func withoutUsr() throws {
        for usr in ["/u 0 40711 2 5 6 0 77.0 - - -", "/usr 1 100644 1 5 6 0 77.0 - x -", "/usr 1 120777 1 5 6 0 77.0 x - -"] {
            let result = try transformed("/ 0 40700 2 1 1 0 1.1 - - - user.root=gone\n\(usr)\n", .keepUserXattrs)
            #expect(result.hasPrefix("/ 0 40755 \(usr.hasPrefix("/u ") ? 3 : 2) 0 0 0 0.0 - - -\n"))
        }
    }

    @Test func runIsEmptied() throws {
        let run = "/run 0 40700 3 1 1 0 5.5 - - - security.capability=r user.u=u\n"
        let below = "/run/lock 0 40755 2 0 0 0 0.0 - - -\n/run/lock/x 1 100644 2 0 0 0 0.0 - x -\n"
        let usr = "/usr 0 40755 2 0 0 0 77.123 - - -\n/usr/x 0 @120000 - - - - 0.0 /run/lock/x - -\n"
        // A file that had a name there loses that one only.
        #expect(
            try transformed("/ 0 40755 4 0 0 0 0.0 - - -\n\(run)\(below)\(usr)") == """
                / 0 40755 4 0 0 0 77.123 - - -
                /run 0 40700 2 1 1 0 77.123 - - - security.capability=r
                /usr 0 40755 2 0 0 0 77.123 - - -
                /usr/x 1 100644 1 0 0 0 0.0 - x -

                """)
        #expect(
            try transformed("/ 0 40700 3 0 0 0 5.0 - - -\n\(run)\(below.replacing("644 2", with: "644 1"))") == """
                / 0 40755 3 0 0 0 0.0 - - -
                /run 0 40700 2 1 1 0 0.0 - - - security.capability=r

                """)
        let link = "/run 1 120777 1 0 0 0 9.0 x - -\n"
        #expect(try transformed("/ 0 40755 2 0 0 0 0.0 - - -\n\(link)").hasSuffix(link))
        let deep = "/var/run 0 40755 3 0 0 0 0.0 - - -\n/var/run/x 1 100644 1 0 0 0 0.0 - x -\n"
        #expect(try transformed("/ 0 40755 3 0 0 0 0.0 - - -\n/var 0 40755 3 0 0 0 0.0 - - -\n\(deep)").contains("/var/run/x"))
    }

    @Test func attributes() throws {
        let all =
            "security.capability=a security.capabilityx=b security.ima=c security.selinux=d system.posix_acl_access=e trusted.overlay.opaque=f "
        let file = "/f 0 100644 1 0 0 0 0.0 - - - "
        let image = "/ 0 40755 2 0 0 0 0.0 - - -\n" + file + all + "user.=h user.a=i username=j\n"
        #expect(try transformed(image).hasSuffix("\n" + file + "security.capability=a\n"))
        #expect(try transformed(image, .keepUserXattrs).hasSuffix("\n" + file + "security.capability=a user.=h user.a=i\n"))
        #expect(XattrFiltering.allCases.map(\.rawValue) == ["allowlist-only", "keep-user-xattrs"])
    }

    /// The same tree again gives itself.
    @Test func idempotent() throws {
        let once = try transformed("/ 0 40700 3 1 1 0 1.1 - - -\n/run 0 40755 2 0 0 0 3.0 - - -\n/usr 0 40711 2 5 6 0 7.3 - - - user.u=u\n")
        #expect(try transformed(once) == once)
    }
}
