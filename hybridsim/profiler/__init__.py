"""From a spec, a device and a workload to one record of costs, each figure labelled."""
