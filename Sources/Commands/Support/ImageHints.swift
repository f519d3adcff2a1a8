import ComposefsCommandSupport
import ComposefsLinuxSystem
import ComposefsOCI

extension Cat: ImageCommand { var namedImage: ByteString? { image } }
extension Export: ImageCommand { var namedImage: ByteString? { image } }
extension History: ImageCommand { var namedImage: ByteString? { image } }
extension Inspect: ImageCommand { var namedImage: ByteString? { image } }
extension List: ImageCommand { var namedImage: ByteString? { image } }
extension Mount: ImageCommand { var namedImage: ByteString? { image } }
extension Push: ImageCommand { var namedImage: ByteString? { image } }
extension Seal: ImageCommand { var namedImage: ByteString? { image } }

/// Hints for errors that concern one image, in addition to `describe`.
enum ImageHints {
    /// The error's text, and what to do about it.
    ///
    /// - Parameters:
    ///   - image: the image of the command, as it was named.
    ///   - store: opens the store that holds the image. Called for damage only.
    static func message(of error: any Error, image: ByteString?, store: () throws -> Store?) -> String {
        guard let hint = hint(for: error, image, store) else { return describe(error) }
        var text = String(describing: error)
        if let image, isDamage(error) || error is ServerEnded { text = Output.printable(image) + ": " + text }
        return text + "; " + hint
    }

    private static func hint(for error: any Error, _ image: ByteString?, _ store: () throws -> Store?) -> String? {
        if let path = deadMount(error) {
            let mount = servedMount(holding: path)
            let mountPoint = Output.printable(mount?.directory ?? path)
            let name = Output.printable(image ?? mount?.image ?? "IMAGE")
            let isSaid = String(describing: error).contains("has ended")
            return (isSaid ? "" : "the process that served \(mountPoint) has ended: ")
                + "`cfsoci umount \(mountPoint)` removes the mount, and `cfsoci mount --fuse \(name) \(mountPoint)` mounts it again"
        }
        if isDamage(error), let image {
            // An image that was created from a directory cannot be pulled again.
            if let images = try? store()?.images, (try? images.hasName(image)) == true, (try? images.resolve(image)) == nil {
                return FsckAdvice.step(forName: image)
            }
            let name = Output.printable(image)
            return "`cfsoci fsck \(name)` lists the damage; `cfsoci fsck --repair \(name)` fetches what is damaged again"
        }
        if error is ServerEnded {
            return "repeat the command; with --foreground it shows what happens"
        }
        return nil
    }

    /// The mount whose file system server has ended (ENOTCONN).
    private static func deadMount(_ error: any Error) -> ByteString? {
        switch error {
        case MountError.notServed(let path), FuseError.notServed(let path): path
        case MountError.system(let system), FuseError.system(let system), RepositoryError.system(let system):
            system.errno == .notConnected ? system.path : nil
        case let system as SystemError: system.errno == .notConnected ? system.path : nil
        default: nil
        }
    }

    /// Whether the error means that stored content of the image is damaged or missing.
    private static func isDamage(_ error: any Error) -> Bool {
        switch error {
        case let error as RepositoryError:
            switch error {
            case .objectDamaged, .objectMissing, .objectTooLarge, .stream, .streamMissing, .image, .invalidLink: true
            default: false
            }
        case ImageStoreError.damaged: true
        case is ErofsError: true
        default: false
        }
    }
}
