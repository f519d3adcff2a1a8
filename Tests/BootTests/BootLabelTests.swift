import ComposefsBytes
import ComposefsFileTree
import ComposefsHashing
import Testing

@testable import ComposefsBoot

@Suite struct BootLabelTests {
    @Test func labelsByPath() throws {
        var tree = try BootTree.with(
            """
            # a comment
              \t
            /\t\tsystem_u:object_r:root_t:s0
            /usr\t\tsystem_u:object_r:usr_t:s0
            /usr/bin(/.*)?\t\tsystem_u:object_r:bin_t:s0
            /etc(/.*)?\t\tsystem_u:object_r:etc_t:s0
            """,
            """
            /etc 0 40755 2 0 0 0 0.0 - - -
            /etc/hostname 2 100644 1 0 0 0 0.0 - x\\n - security.selinux=old user.keep=me
            /usr 0 40755 3 0 0 0 0.0 - - - security.selinux=old
            /usr/bin 0 40755 2 0 0 0 0.0 - - -
            /usr/bin/hello 2 100755 1 0 0 0 0.0 - x\\n -
            /usr/binary 2 100755 1 0 0 0 0.0 - x\\n - security.selinux=old

            """)
        try BootTree.transform(&tree)
        #expect(try BootTree.label(tree, "/") == "system_u:object_r:root_t:s0")
        #expect(try BootTree.label(tree, "/usr") == "system_u:object_r:usr_t:s0")
        #expect(try BootTree.label(tree, "/usr/bin") == "system_u:object_r:bin_t:s0")
        #expect(try BootTree.label(tree, "/usr/bin/hello") == "system_u:object_r:bin_t:s0")
        #expect(try BootTree.label(tree, "/usr/binary") == nil)
        #expect(try BootTree.label(tree, "/etc/hostname") == "system_u:object_r:etc_t:s0")
        #expect(try BootTree.label(tree, "/etc/selinux/config") == "system_u:object_r:etc_t:s0")
        #expect(try BootTree.label(tree, "/boot") == nil)
        let host = try #require(tree.lookup(path: "/etc/hostname"))
        #expect(tree.extendedAttributes(of: host).map(\.name) == ["security.selinux", "user.keep"])
    }

    @Test func labelsByType() throws {
        var tree = try BootTree.with(
            """
            /t/.* any
            /t/.* -b block
            /t/.* -c char
            /t/.* -p fifo
            /t/.* -s sock
            /t/.* -l link
            /t/.* -d dir
            /t/.* -- file
            /t/x.* untyped
            """,
            """
            /t 0 40755 3 0 0 0 0.0 - - -
            /t/b 0 60644 1 0 0 5 0.0 - - -
            /t/c 0 20644 1 0 0 5 0.0 - - -
            /t/d 0 40755 2 0 0 0 0.0 - - -
            /t/f 1 100644 1 0 0 0 0.0 - x -
            /t/l 1 120777 1 0 0 0 0.0 f - -
            /t/p 0 10644 1 0 0 0 0.0 - - -
            /t/s 0 140644 1 0 0 0 0.0 - - -
            /t/xf 1 100644 1 0 0 0 0.0 - x -

            """)
        try BootTree.transform(&tree)
        for (name, label) in [
            ("b", "block"), ("c", "char"), ("d", "dir"), ("f", "file"), ("l", "link"), ("p", "fifo"), ("s", "sock"), ("xf", "untyped"),
        ] {
            #expect(try BootTree.label(tree, ByteString("/t/" + name)) == label)
        }
        #expect(try BootTree.label(tree, "/t") == nil)
    }

    @Test func lastLineOfLastFileWins() throws {
        var tree = try BootTree.with(
            "/a(/.*)? one\n/a/x two\n/a/y two\n/a/n <<none>>\n/a/m two\n",
            [(".local", "/a/y three\n/a/z three\n/a/m <<none>>\n"), (".homedirs", "/a/z four\n")],
            """
            /a 0 40755 2 0 0 0 0.0 - - -
            /a/m 1 100644 1 0 0 0 0.0 - x - security.selinux=old
            /a/n 1 100644 1 0 0 0 0.0 - x - security.selinux=old
            /a/w 1 100644 1 0 0 0 0.0 - x -
            /a/x 1 100644 1 0 0 0 0.0 - x -
            /a/y 1 100644 1 0 0 0 0.0 - x -
            /a/z 1 100644 1 0 0 0 0.0 - x -

            """)
        try BootTree.transform(&tree)
        let labels = try ["w", "x", "y", "z", "n", "m"].map { try BootTree.label(tree, ByteString("/a/" + $0)) }
        #expect(labels == ["one", "two", "three", "four", nil, nil])
    }

    @Test func aliases() throws {
        var tree = try BootTree.with(
            "/home(/.*)? home\n/srv(/.*)? srv\n/usr/lib(/.*)? lib\n/opt/in(/.*)? in\n/x root-x\n",
            [
                (".subs", "# none\n/srv /wrong\n/lib64 /usr/lib\n/home/deep /opt/in\n/r /\n"), (".subs_dist", "/srv /home\n"),
            ],
            """
            /lib64 0 40755 2 0 0 0 0.0 - - -
            /lib64/a 1 100644 1 0 0 0 0.0 - x -
            /r 0 40755 2 0 0 0 0.0 - - -
            /r/x 1 100644 1 0 0 0 0.0 - x -
            /srv 0 40755 2 0 0 0 0.0 - - -
            /srv/data.txt 1 100644 1 0 0 0 0.0 - x -
            /srv/deep 0 40755 2 0 0 0 0.0 - - -
            /srv/deep/a 1 100644 1 0 0 0 0.0 - x -
            /srv/e 0 40755 2 0 0 0 0.0 - - -
            /srv/e/f 1 100644 1 0 0 0 0.0 - x -
            /srv2 1 100644 1 0 0 0 0.0 - x -
            /x 1 100644 1 0 0 0 0.0 - x -

            """)
        try BootTree.transform(&tree)
        for (path, label) in [
            ("/srv", "home"), ("/srv/data.txt", "home"), ("/srv/deep", "in"), ("/srv/deep/a", "in"), ("/srv/e/f", "home"), ("/srv2", nil),
            ("/lib64", "lib"), ("/lib64/a", "lib"), ("/r/x", "root-x"), ("/x", "root-x"),
        ] as [(String, String?)] {
            #expect(try BootTree.label(tree, ByteString(path)) == label, "\(path)")
        }
    }

    @Test func hardLinksWithDifferentLabelsAreSplit() throws {
        var tree = try BootTree.with(
            "/a/.* one\n/b/.* two\n",
            """
            /a 0 40755 2 0 0 0 0.0 - - -
            /a/x 1 100644 5 0 0 0 0.0 - x -
            /a/y 0 @100644 5 0 0 0 0.0 /a/x - -
            /b 0 40755 2 0 0 0 0.0 - - -
            /b/x 0 @100644 5 0 0 0 0.0 /a/x - -
            /b/y 0 @100644 5 0 0 0 0.0 /a/x - -
            /c 0 @100644 5 0 0 0 0.0 /a/x - -

            """)
        try BootTree.transform(&tree)
        let inodes = try ["a/x", "a/y", "b/x", "b/y", "c"].map { try #require(tree.lookup(path: ByteString($0))) }
        #expect(inodes[0] == inodes[1])
        #expect(Set(inodes).count == 4)
        #expect(inodes.map(tree.linkCount(of:)) == [2, 2, 1, 1, 1])
        #expect(inodes.map(tree.content(of:)) == Array(repeating: .inline("x"), count: 5))
        let labels = try ["a/x", "a/y", "b/x", "b/y", "c"].map { try BootTree.label(tree, ByteString($0)) }
        #expect(labels == ["one", "one", "two", "two", nil])
    }

    @Test(arguments: [
        "", "SELINUX=disabled\n", "# SELINUXTYPE=targeted\n", "SELINUXTYPE\n",
    ])
    func withoutPolicyLabelsAreTakenAway(_ config: String) throws {
        var tree = try BootTree.with(
            "/a all\n", config: config, "/a 1 100644 1 0 0 0 0.0 - x - security.selinux=old user.keep=me\n")
        try BootTree.transform(&tree)
        #expect(try BootTree.label(tree, "/a") == nil)
        #expect(tree.extendedAttributes(of: try #require(tree.lookup(path: "/a"))).map(\.name) == ["user.keep"])
    }

    @Test(
        arguments: [
            ("SELINUX=disabled\n selinuxType =\ttargeted \r\nSELINUXTYPE=mls\n", "targeted"), ("SELINUXTYPE=a # b", "a # b"),
            ("SELINUXTYPE=", ""),
            ("SELINUXTYPE=a=b", "a=b"), ("=x\nSELINUXTYPE", nil),
        ] as [(String, String?)])
    func policyType(_ text: String, _ type: String?) {
        #expect(SelinuxPolicy.policyType(Array(text.utf8))?.utf8Text == type)
    }

    @Test func policyInObjects() throws {
        var tree = try BootTree.with(nil, "/a 1 100644 1 0 0 0 0.0 - x -\n")
        let text = Array("/a  from-object\n".utf8)
        let id = text.withUnsafeBytes { VerityHasher.objectID(of: $0, .sha256) }
        let files = try #require(tree.lookup(path: "etc/selinux/targeted/contexts/files"))
        try tree.addLeaf("file_contexts", in: files, Metadata(permissions: 0o644), .external(id, size: UInt64(text.count)))
        var labelled = tree
        try transformForBoot(&labelled) {
            #expect($0 == id)
            return text
        }
        #expect(try BootTree.label(labelled, "/a") == "from-object")
        #expect(BootTree.fault(tree)?.hasPrefix("SELinux policy: /etc/selinux/targeted/contexts/files/file_contexts: ") == true)
        try tree.setContent(
            of: try #require(tree.lookup(path: "etc/selinux/targeted/contexts/files/file_contexts")), to: .external(id, size: 1 << 40))
        #expect(
            BootTree.fault(tree)
                == "SELinux policy: /etc/selinux/targeted/contexts/files/file_contexts: 1099511627776 bytes; at most 33554432 are read")
    }

    static let file = "/etc/selinux/targeted/contexts/files/file_contexts"

    @Test(arguments: [
        ("/a x\n\n/b -q x\n", "line 3: \"-q\" is no file type (-b, -c, -d, -p, -l, -s or --)"),
        ("/a -dd x", "line 1: \"-dd\" is no file type (-b, -c, -d, -p, -l, -s or --)"),
        ("/a - x", "line 1: \"-\" is no file type (-b, -c, -d, -p, -l, -s or --)"),
        ("# c\n/a\n", "line 2: a pattern without a label"),
        ("/a --\n", "line 1: a pattern and a file type without a label"),
        ("/a x y\n", "line 1: something follows the label \"x\""),
        ("/a -- x y\n", "line 1: something follows the label \"x\""),
        ("/a\0 x\n", "line 1: a NUL byte: this is no text"),
        ("/a(b x\n", "line 1: missing closing parenthesis (at byte 9 of \"^(/a(b).$\")"),
    ])
    func damagedLines(_ text: String, _ fault: String) throws {
        #expect(BootTree.fault(try BootTree.with(text, "")) == "SELinux policy: \(Self.file), \(fault)")
    }

    @Test func damagedPolicies() throws {
        #expect(
            BootTree.fault(try BootTree.with(nil, ""))
                == "SELinux policy: \(Self.file): missing, but /etc/selinux/config asks for the policy \"targeted\"")
        for type in ["", ".", "..", "a/b"] {
            #expect(
                BootTree.fault(try BootTree.with("", config: "SELINUXTYPE=\(type)", ""))
                    == "SELinux policy: /etc/selinux/config: SELINUXTYPE=\(type) names no directory of a policy")
        }
        for (text, fault) in [
            ("/a\n", "line 1: an alias without the path that it stands for"), ("\n/a /b /c\n", "line 2: something follows the two paths"),
        ] {
            #expect(BootTree.fault(try BootTree.with("", [(".subs", text)], "")) == "SELinux policy: \(Self.file).subs, \(fault)")
        }
        let long = String(repeating: "a", count: 5000)
        #expect(
            BootTree.fault(try BootTree.with("/\(long) x", "")) == "SELinux policy: \(Self.file), line 1: a field of more than 4096 bytes")
        var linked = try BootTree.with("", "")
        let selinux = try #require(linked.lookup(path: "etc/selinux"))
        linked.remove("targeted", from: selinux)
        try linked.addLeaf("targeted", in: selinux, Metadata(permissions: 0o777), .symbolicLink("elsewhere"))
        #expect(BootTree.fault(linked) == "/etc/selinux/targeted in the image is no directory")
        linked.remove("config", from: selinux)
        try linked.addLeaf("config", in: selinux, Metadata(permissions: 0o777), .symbolicLink("elsewhere"))
        #expect(BootTree.fault(linked) == "SELinux policy: /etc/selinux/config: is no regular file")
    }

    @Test func runawayPatternsAreGivenUp() throws {
        let name = "/" + String(repeating: "a", count: 60) + "!b"
        let tree = try BootTree.with("/b x\n/(a+)+b x\n", "\(name) 1 100644 1 0 0 0 0.0 - x -\n")
        #expect(
            BootTree.fault(tree)
                == "SELinux policy: \(Self.file), line 2: its pattern cannot be tried on \"\(name)\": match limit exceeded")
    }

    @Test func deepTrees() throws {
        var tree = try BootTree.with("/d(/.*)? x\n", "")
        var at = FileTree.root
        for _ in 0..<8000 { at = try tree.addDirectory("d", in: at, Metadata(permissions: 0o755)) }
        var fine = tree
        try BootTree.transform(&fine)
        #expect(try BootTree.label(fine, "/d/d/d/d") == "x")
        #expect(fine.metadata(of: at)[attribute: "security.selinux"] == "x")
        for _ in 0..<1000 { at = try tree.addDirectory("d", in: at, Metadata(permissions: 0o755)) }
        #expect(BootTree.fault(tree)?.hasPrefix("a path of more than 16384 bytes cannot be labelled; it begins with \"/d/d/") == true)
    }

    /// Any damage to a policy's bytes gives labels or an error.
    @Test func damagedBytes() throws {
        let text = Array("/a(/.*)? -- one\n/[ab]{1,2}\\.c(x|y)+ two\n(?i)/b.* -d <<none>>\n".utf8)
        let aliases = Array("/a /b\n/c /a\n".utf8)
        let tree = try BootTree.with(
            "", [(".subs", "")], "/a 0 40755 2 0 0 0 0.0 - - -\n/a/b.cx 1 100644 1 0 0 0 0.0 - x -\n/c 0 40755 2 0 0 0 0.0 - - -\n")
        let policy = try #require(tree.lookup(path: ByteString(Self.file)))
        let substitutions = try #require(tree.lookup(path: ByteString(Self.file + ".subs")))
        let config = try #require(tree.lookup(path: "etc/selinux/config"))
        var faults = 0
        func tryOut(_ bytes: [UInt8], in file: FileTree.InodeID) throws {
            var damaged = tree
            try damaged.setContent(of: policy, to: .inline(ByteString(text)))
            try damaged.setContent(of: file, to: .inline(ByteString(bytes)))
            if BootTree.fault(damaged) != nil { faults += 1 }
        }
        for (file, bytes) in [(policy, text), (substitutions, aliases), (config, Array("SELINUXTYPE=targeted\n".utf8))] {
            for index in bytes.indices {
                try tryOut(Array(bytes[..<index]), in: file)
                for value in [0, 0xff, 0x0a, 0x20, 0x28, 0x29, 0x5b, 0x5c, 0x7c, bytes[index] ^ 1] as [UInt8] {
                    var changed = bytes
                    changed[index] = value
                    try tryOut(changed, in: file)
                }
            }
        }
        #expect(faults > 100)
    }
}
