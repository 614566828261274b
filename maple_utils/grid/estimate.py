def request(stage, cell, settings, device):
    return {"mem_mb": 2500, "runtime": 30}
