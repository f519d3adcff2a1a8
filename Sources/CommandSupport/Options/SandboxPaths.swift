import ComposefsBytes
package import ComposefsConfinement
import ComposefsLinuxSystem
package import ComposefsOCI

/// What arguments add to a confinement.
extension Confinement {
    /// Reading an image from a source.
    package mutating func addSource(_ reference: ImageReference, _ registry: RegistryOptions) throws {
        switch reference {
        case .registry(let name): addRegistry(registry, recordsShortName: registry.chooseRegistry != nil && name.shortName != nil)
        case .ociArchive(let location) where location.isStream, .dockerArchive(let location) where location.isStream: break
        case .layout(let location), .ociArchive(let location), .dockerArchive(let location): readable.append(try location.located().path)
        case .directory(let path): readable.append(path)
        case .containersStorage(let name):
            let configuration = try StorageConfiguration()
            readable += configuration.paths + (try StorageSource.roots(of: name, configured: configuration.roots))
        }
    }

    /// Sockets, and the files of this machine and its user about registries. A credential helper may need anything, and is confined as this
    /// process is: if a configuration names one, paths are not limited, and programs may be started until the network is given up.
    package mutating func addRegistry(_ options: RegistryOptions, recordsShortName: Bool = false) {
        add(options.files(recordsShortName: recordsShortName))
    }

    package mutating func add(_ files: RegistryFiles) {
        usesNetwork = true
        readable += files.readable
        writable += files.writable
        if files.runsHelpers {
            runsPrograms = true
            limitsPaths = false
        }
    }

    /// Writing an image to a destination.
    package mutating func addDestination(_ reference: ImageReference, _ registry: RegistryOptions) throws {
        switch reference {
        case .registry: addRegistry(registry)
        case .layout(let location):
            let path = try location.located().path
            // A rule is for a directory that exists. As the destination does, one level is made, and another user's directory is refused.
            if try FileDescriptor.currentDirectory.makeDirectoryIfMissing(at: path, mode: 0o755),
                try FileDescriptor.openDirectoryToWrite(path).status().uid != Host.effectiveUserID
            {
                throw OCIError.damaged(source: path, .replacedDirectory)
            }
            writable.append(path)
        case .ociArchive(let location) where location.isStream: break
        case .ociArchive(let location):
            // The new archive replaces the old one, and until then has no name or another.
            writable.append(FileDescriptor.split(try location.located().path).directory)
        default: break
        }
    }
}
