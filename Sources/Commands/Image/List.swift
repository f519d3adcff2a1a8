import ArgumentParser
import ComposefsCommandSupport
import ComposefsLinuxSystem
import ComposefsOCI

struct List: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "ls", abstract: "List files of an image without mounting it.")

    @Argument(help: "The image.", completion: .imageName)
    var image: ByteString

    @Argument(help: "A directory or file in it.")
    var path: ByteString = "/"

    @Flag(name: .short, help: "Also print type, mode, owner, size and time.")
    var long = false

    @Flag(name: [.customShort("R")], help: "List all subdirectories, too.")
    var recursive = false

    @OptionGroup var global: GlobalOptions

    func run() throws {
        let store = try global.openStore(Self.rights, readOnly: true)
        let tree = try store.images.tree(ofImage: image)
        guard var inode = tree.resolve(path) else { throw CommandError("\(image): no \(path) in the image") }
        // As ls(1): a link to a directory is listed as that directory, unless the link itself may be meant.
        if !long || path.hasSuffix("/"), let target = tree.resolve(path, followingLast: true), tree.isDirectory(target) { inode = target }
        guard tree.isDirectory(inode) else { return try show(tree, path, inode) }
        // A list instead of recursion: the image decides how deep the tree is. Children come before their later siblings.
        var pending = try listed(tree, inode, prefix: ByteString())
        pending.reverse()
        while let (name, child) = pending.popLast() {
            try show(tree, name, child)
            if recursive, tree.isDirectory(child) { pending += try listed(tree, child, prefix: name + "/").reversed() }
        }
    }

    private func listed(_ tree: FileTree, _ directory: FileTree.InodeID, prefix: ByteString) throws -> [(ByteString, FileTree.InodeID)] {
        tree.sortedEntries(of: directory).map { (prefix + tree.name(of: $0), tree.inode(of: $0)) }
    }

    private func show(_ tree: FileTree, _ name: ByteString, _ inode: FileTree.InodeID) throws {
        guard long else {
            return try Output.write(shown(name) + [0x0a])
        }
        let metadata = tree.metadata(of: inode)
        var size = "0"
        var suffix: [UInt8] = []
        switch tree.content(of: inode) {
        case .inline(let bytes): size = "\(bytes.count)"
        case .external(_, let count), .externalWithoutVerity(_, let count), .sparse(let count): size = "\(count)"
        case .symbolicLink(let target):
            size = "\(target.count)"
            suffix = Array(" -> ".utf8) + shown(target)
        case .blockDevice(let number), .characterDevice(let number):
            size = "\(number >> 8 & 0xfff | number >> 32 & ~0xfff),\(number & 0xff | number >> 12 & 0xfff00)"
        default: break
        }
        let links =
            tree.isDirectory(inode)
            ? 2 + tree.entries(of: inode).count { tree.isDirectory(tree.inode(of: $0)) } : Int(tree.linkCount(of: inode))
        let fields = [
            modeText(tree.kind(of: inode), metadata.permissions), "\(links)", "\(metadata.uid)", "\(metadata.gid)",
            String(repeating: " ", count: max(0, 10 - size.count)) + size, Host.rfc3339(metadata.modified.seconds),
        ]
        try Output.write(Array((fields.joined(separator: " ") + " ").utf8) + shown(name) + suffix + [0x0a])
    }

    /// The bytes of the name; on a terminal without control characters.
    private func shown(_ name: ByteString) -> [UInt8] {
        Output.outputIsTerminal ? Array(Output.printable(name).utf8) : name.bytes
    }
}

/// `drwxr-xr-x`, as ls(1) writes it.
func modeText(_ kind: FileTree.Kind, _ permissions: UInt16) -> String {
    let type: Character =
        switch kind {
        case .regular: "-"
        case .directory: "d"
        case .characterDevice: "c"
        case .blockDevice: "b"
        case .fifo: "p"
        case .socket: "s"
        case .symbolicLink: "l"
        }
    var text = String(type)
    for (shift, special, set) in [(6, UInt16(0o4000), "s"), (3, 0o2000, "s"), (0, 0o1000, "t")] as [(UInt16, UInt16, String)] {
        let bits = permissions >> shift
        text += bits & 4 != 0 ? "r" : "-"
        text += bits & 2 != 0 ? "w" : "-"
        let executable = bits & 1 != 0
        if permissions & special != 0 {
            text += executable ? set : set.uppercased()
        } else {
            text += executable ? "x" : "-"
        }
    }
    return text
}
