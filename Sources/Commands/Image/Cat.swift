import ArgumentParser
import ComposefsCommandSupport
import ComposefsLinuxSystem
import ComposefsOCI

struct Cat: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "cat", abstract: "Print a file of an image, verified.")

    @Argument(help: "The image.", completion: .imageName)
    var image: ByteString

    @Argument(help: "The file; symbolic links are followed inside the image.")
    var path: ByteString

    @OptionGroup var global: GlobalOptions

    func run() throws {
        let store = try global.openStore(Self.rights, readOnly: true)
        let tree = try store.images.tree(ofImage: image)
        guard let inode = tree.resolve(path, followingLast: true) else {
            throw CommandError("\(image): no \(path) in the image")
        }
        switch tree.content(of: inode) {
        case .inline(let bytes): try Output.write(bytes.bytes)
        case .external(let id, _), .externalWithoutVerity(let id, _): try copyObject(id, from: store.repository)
        case .sparse(let size):
            var left = size
            while left > 0 {
                let count = min(left, 1 << 16)
                try Output.write(repeatElement(0, count: Int(count)))
                left -= count
            }
        case nil: throw CommandError("\(path) is a directory")
        default: throw CommandError("\(path) is no regular file")
        }
    }
}

/// Writes an object to standard output, and verifies it before the first byte.
func copyObject(_ id: ObjectID, from repository: Repository) throws {
    let file = try repository.openObject(id)
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 17, alignment: 16)
    defer { buffer.deallocate() }
    while true {
        let count = try file.read(into: buffer)
        if count == 0 { return }
        try Output.write(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
    }
}
